// What the binding hands to the core: plain values, the same for every instruction set.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

enum class LayerKind {
  linear, identity, dropout, prelu, batch_norm, layer_norm, softmax, log_softmax, input, relu,
  leaky_relu, elu, selu, gelu, gelu_tanh, silu, mish, softplus, tanh, sigmoid, hardtanh,
};

struct LayerSpec {
  LayerKind kind;
  int out = 0;        // columns that come out; 0: as many as go in
  bool bias = false;  // of a norm: whether it has parameters
  int n = 0;          // numbers of an input layer, slopes of PReLU, 1 for a layer norm with a bias
  double a = 0, b = 0;
  std::vector<int> codes, widths;
  std::vector<std::vector<double>> edges;  // of each number's bins, or of none; ascending
};

enum class LossKind { mse, l1, smooth_l1, huber, bce, bce_logits, cross_entropy, nll };
enum class OptimizerKind { sgd, adam, nadam, rmsprop, adagrad };

// One run of neighbouring parameters with one learning rate and one set of options, and how far the
// optimizer has come with them.
struct Group {
  long from = 0, to = 0, steps = 0;
  double lr = 0, weight_decay = 0, momentum = 0, dampening = 0, beta1 = 0, beta2 = 0, eps = 0,
         alpha = 0, lr_decay = 0, momentum_decay = 0, mu_product = 1;
  bool nesterov = false, amsgrad = false, centered = false, maximize = false;
  bool decoupled = false;         // weight decay apart from the gradient, as in AdamW
  bool product_in_double = false;  // the type in which torch keeps mu_product

  // Whether another begins where this one ends, and is updated alike but for its learning rate.
  bool goes_on_in(const Group& g) const {
    const auto all = [](const Group& o) {
      return std::tie(o.steps, o.weight_decay, o.momentum, o.dampening, o.beta1, o.beta2, o.eps,
                      o.alpha, o.lr_decay, o.momentum_decay, o.mu_product, o.nesterov, o.amsgrad,
                      o.centered, o.maximize, o.decoupled, o.product_in_double);
    };
    return to == g.from && all(*this) == all(g);
  }
};

// Arrays of the network's type, by address: rows to learn from or to answer.
// Of y (n, n_targets) and classes (n,) one is null; w (n,) may be.
struct Data {
  long n = 0;
  const void* X = nullptr;
  const void* y = nullptr;
  const int64_t* classes = nullptr;
  const void* w = nullptr;
  int n_targets = 1;
};

struct LossSpec {
  LossKind kind = LossKind::mse;
  double a = 1;
  const void* weight = nullptr;
  long ignored = -100;
};

struct Request {
  const int64_t* order = nullptr;
  long batch_size = 1;
  double deadline = 1e300;  // on the steady clock
  double clip_norm = 0, clip_value = 0;
  const double* rates = nullptr;  // (steps, groups), or null for those of the groups
  OptimizerKind optimizer = OptimizerKind::sgd;
};

struct Outcome {
  double loss = 0;
  long steps = 0, rows = 0, bad_from = -1, bad_to = -1;
  bool complete = false;
};

// Which rows of the data, in which order; all of them as they stand where `order` is null.
struct Part {
  const int64_t* order = nullptr;
  long n = 0;
};

// Called now and then from long work; it throws to end it.
using Poll = std::function<void()>;

// What a parameter or running statistic is called by: its shape, and where it is in the buffers.
struct Place {
  int rows, columns;
  long from, to;
};

// What was seen since the last time it was asked, summed over the steps that were looked at.
struct LayerSeen {  // of the outputs: NaN and infinities count in `outputs` and in the sums
  double outputs = 0, sum = 0, squares = 0, zeros = 0;
  double saturated = 0, beyond = 0;  // of an activation: hardly any slope; inputs beyond 5 and -5
  double units = 0, dead = 0;        // dead: 0 for every row
};
struct ParameterSeen {  // squares of the norms of the gradient, the update, and what is updated
  double steps = 0, gradient = 0, update = 0, weight = 0;
};
using Seen = std::pair<std::vector<LayerSeen>, std::vector<ParameterSeen>>;

// A network of one plan, in one type, for one instruction set.
class Core {
 public:
  virtual ~Core() = default;
  virtual int n_outputs() const = 0;
  virtual std::vector<Place> parameters() const = 0;
  virtual std::vector<Place> statistics() const = 0;
  virtual void put(int buffer, int slot, const void* from) = 0;
  virtual void get(int buffer, int slot, void* to) = 0;
  virtual long batches(int layer) const = 0;
  virtual void set_batches(int layer, long n) = 0;
  virtual void seed(uint64_t s) = 0;
  virtual void watch(long every) = 0;
  virtual Seen seen() = 0;
  virtual void predict(const void* X, long n, void* outputs, const Poll& poll) = 0;
  virtual std::pair<double, double> measure(const Data& data, const Part& part,
                                            const LossSpec& loss, void* outputs,
                                            const Poll& poll) = 0;
  virtual void keep() = 0;
  virtual bool has_kept() const = 0;
  virtual long kept_batches(int layer) const = 0;
  virtual double gradients(const Data& data, const int64_t* order, long n, const LossSpec& loss) = 0;
  virtual Outcome epoch(const Data& data, const Request& ask, const LossSpec& loss,
                        std::vector<Group>& groups, const Poll& poll) = 0;
};
