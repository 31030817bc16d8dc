// A plan, run: layers over one flat buffer of parameters, batches gathered by index, epochs.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "flushing.hpp"
#include "layers.hpp"
#include "losses.hpp"
#include "optimizers.hpp"
#include "products.hpp"
#include "request.hpp"

namespace LW_SPACE {

// Memory on cache lines, zeroed.
template <class T> class Buffer {
 public:
  explicit Buffer(long n = 0) { resize(n); }
  void resize(long n) {
    memory_.assign(n * sizeof(T) / 64 + 2, Line{});
    size_ = n;
  }
  T* data() { return reinterpret_cast<T*>(memory_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data()); }
  long size() const { return size_; }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> memory_;
  long size_ = 0;
};

// Where a parameter or running statistic of torch is in the flat buffer, and in which form.
struct Slot {
  enum Form { matrix, vector, plain } form;  // matrix: (O, I) as [O/P][I][P]
  int rows, columns;
  long at, length;
};

constexpr int WIDEST = 1 << 24;  // columns or codes: products of two of them stay far inside 64 bits

constexpr uint64_t mixed(uint64_t x) {  // splitmix64: Steele, Lea & Flood (2014)
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

template <class T> class Network final : public Core {
  static constexpr int p = P<T>;

  // The rows, by their types.
  struct Arrays {
    long n;
    const T *X, *y, *w;
    const int64_t* classes;
    int n_targets;
  };

  struct Layer {
    LayerSpec spec;
    int in = 0, out = 0;
    std::vector<int> slots;  // of its parameters, in torch's order
    std::vector<int> statistics;
    Buffer<T> y, dy, turned, kept;
    long batches = 0;  // that batch normalisation has seen
    LayerSeen seen;
  };

 public:
  Network(const std::vector<LayerSpec>& plan, int n_inputs) : n_inputs_(n_inputs) {
    if (n_inputs < 1 || n_inputs > WIDEST) throw std::invalid_argument("no such number of inputs");
    int width = n_inputs;
    for (const LayerSpec& spec : plan) {
      Layer layer;
      layer.spec = spec;
      layer.in = width;
      width = layer.out = spec.out ? spec.out : width;
      check(layer, layers_.empty());
      layers_.push_back(std::move(layer));
    }
    for (Layer& layer : layers_) add_slots(layer);
    theta_.resize(size_);
    statistics_.resize(statistics_size_);
  }

  int n_outputs() const override { return layers_.empty() ? n_inputs_ : layers_.back().out; }
  std::vector<Place> parameters() const override { return places(slots_); }
  std::vector<Place> statistics() const override { return places(statistic_slots_); }

  // Buffers: 0 the parameters, 1 their gradients, 2 to 4 what the optimizer remembers of each, 5 the
  // running statistics. Arrays outside are as torch has them.
  void put(int buffer, int slot, const void* from) override {
    moved<true>(slot_of(buffer, slot), memory(buffer), const_cast<T*>(static_cast<const T*>(from)));
  }
  void get(int buffer, int slot, void* to) override {
    moved<false>(slot_of(buffer, slot), memory(buffer), static_cast<T*>(to));
  }
  long batches(int layer) const override { return layers_.at(layer).batches; }
  void set_batches(int layer, long n) override { layers_.at(layer).batches = n; }
  // Two seeds' streams have nothing in common, also where the seeds are neighbours.
  void seed(uint64_t s) override {
    seed_ = mixed(s);
    drawn_ = 0;
  }

  // Look at the first step of each epoch and at every so manieth after it; 0 for none. At one in 20
  // it costs a few parts in a hundred of the time, and a step in which nothing is looked at nothing.
  void watch(long every) override {
    every_ = every;
    before_.resize(every ? size_ : 0);
    seen();
  }
  std::pair<std::vector<LayerSeen>, std::vector<ParameterSeen>> seen() override {
    std::vector<LayerSeen> layers;
    for (Layer& l : layers_) layers.push_back(std::exchange(l.seen, {}));
    return {layers, std::exchange(parameters_seen_, std::vector<ParameterSeen>(slots_.size()))};
  }

  // ------------------------------------------------------------ passes

  // Outputs of shape (n, n_outputs), row by row, in evaluation mode.
  void predict(const void* rows_of_X, long n, void* to, const Poll& poll) override {
    const T* X = static_cast<const T*>(rows_of_X);
    T* outputs = static_cast<T*>(to);
    in_chunks(n, poll, [&](long from, int rows) {
      gather(X + from * n_inputs_, nullptr, rows);
      const T* z = forward(rows, false);
      for (int b = 0; b < rows; ++b)
        for (int o = 0; o < n_outputs(); ++o)
          outputs[(from + b) * n_outputs() + o] = z[(o / p) * cap_ * p + (long)b * p + o % p];
    });
  }

  // Sum of the loss over all rows in evaluation mode, and the weight that they stand for.
  std::pair<double, double> measure(const Data& data, const LossSpec& spec,
                                    const Poll& poll) override {
    const Arrays rows = arrays(data);
    const LossOf<T> loss = loss_of(spec);
    double sum = 0, weight = 0;
    in_chunks(rows.n, poll, [&](long from, int n) {
      gather(rows.X + from * n_inputs_, nullptr, n);
      const T* z = forward(n, false);
      const Summed told = batch_loss(loss, n, z, target(rows, from, n, nullptr), nullptr);
      sum += told.sum;
      weight += told.weight;
    });
    return {sum, weight};
  }

  // One batch's loss; its gradients are left in the gradient buffer.
  double gradients(const Data& data, const int64_t* order, long n, const LossSpec& spec) override {
    return gradients(arrays(data), order, n, loss_of(spec));
  }

  double gradients(const Arrays& rows, const int64_t* order, int n, const LossOf<T>& loss) {
    reserve(n);
    need(grad_);
    gather(rows.X, order, n);
    const T* z = forward(n, true);
    T* dz = layers_.empty() ? spare_.data() : layers_.back().dy.data();
    const Summed told = batch_loss(loss, n, z, target(rows, 0, n, order), dz);
    const double value = told.sum / told.divisor;
    if (value - value != 0) return value;  // NaN or infinite: nothing is to be learnt from it
    const T by = T(1 / told.divisor);
    for (int q = 0; q < panels<T>(n_outputs()); ++q)
      for (long i = 0; i < (long)n * p; i += L<T>) at(dz + q * cap_ * p + i) *= by;
    backward(n);
    return value;
  }

  // One epoch over rows in the given order.
  Outcome epoch(const Data& data, const Request& ask, const LossSpec& spec,
                std::vector<Group>& groups, const Poll& poll) override {
    const Arrays rows = arrays(data);
    const LossOf<T> loss = loss_of(spec);
    const Flushing flushing;
    Outcome told;
    Look look(poll);
    long done = 0;
    double total = 0;
    const long n = rows.n, size = std::min(std::max(ask.batch_size, 1L), std::max(n, 1L));
    while (done < n) {
      long stop = std::min(done + size, n);
      if (n - stop == 1) stop = n;  // a last row alone joins the batch before
      if (told.steps && look() > ask.deadline) break;
      const int count = stop - done;
      const double value = gradients(rows, ask.order + done, count, loss);
      if (value - value != 0) {
        told.bad_from = done;
        told.bad_to = stop;
        break;
      }
      const bool looking = every_ && told.steps % every_ == 0;
      if (looking) look_at_step(count);
      clip(ask.clip_value, ask.clip_norm);
      step(groups, ask.rates ? ask.rates + told.steps * (long)groups.size() : nullptr, ask.optimizer);
      if (looking) look_at_update();
      total += value * count;
      done = stop;
      ++told.steps;
    }
    told.rows = done;
    told.loss = done ? total / done : 0;
    told.complete = done == n;
    return told;
  }

 private:
  int n_inputs_;
  long cap_ = 0;  // rows between two panels; long, as are all products with it
  long size_ = 0, statistics_size_ = 0;
  uint64_t seed_ = 0, drawn_ = 0;
  std::vector<Layer> layers_;
  std::vector<Slot> slots_, statistic_slots_;
  Buffer<T> theta_, grad_, state_[3], statistics_, input_, spare_;
  std::vector<T> batch_y_, batch_w_;
  std::vector<int64_t> batch_c_;
  long every_ = 0;
  Buffer<T> before_;  // the parameters before an update that is looked at
  std::vector<ParameterSeen> parameters_seen_;

  // The clock, and every 20 ms a look at whether the caller wants to stop.
  class Look {
   public:
    explicit Look(const Poll& poll) : poll_(poll), last_(now()) {}
    double operator()() {
      const double time = now();
      if (time - last_ > 0.02) {
        last_ = time;
        poll_();
      }
      return time;
    }

   private:
    static double now() {
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
    }
    const Poll& poll_;
    double last_;
  };

  // Rows a few at a time, so that hidden layers stay in the cache.
  template <class F> void in_chunks(long n, const Poll& poll, F f) {
    constexpr long chunk = 256;
    reserve(std::min(n, chunk));
    Look look(poll);
    for (long from = 0; from < n; from += chunk) {
      f(from, (int)std::min(chunk, n - from));
      look();
    }
  }

  // What the passes rely on; a plan that was read from torch has it all.
  static void check(const Layer& l, bool first) {
    const LayerSpec& s = l.spec;
    const auto holds = [](bool right, const char* what) {
      if (!right) throw std::invalid_argument(what);
    };
    holds(l.out >= 1 && l.out <= WIDEST, "a layer has no such number of columns");
    switch (s.kind) {
      case LayerKind::linear:
        break;
      case LayerKind::input: {
        holds(first, "an input layer comes first");
        holds(s.n >= 0 && s.n <= l.in && s.codes.size() == (size_t)(l.in - s.n) &&
                  s.widths.size() == s.codes.size(),
              "the input layer does not fit the columns");
        long out = s.n;
        for (size_t k = 0; k < s.codes.size(); ++k) {
          holds(s.codes[k] >= 0 && s.codes[k] < WIDEST && s.widths[k] >= 0 && s.widths[k] <= WIDEST,
                "a category has no such number of codes");
          out += s.widths[k] ? s.widths[k] : s.codes[k];
        }
        holds(out == l.out, "the input layer gives another number of columns");
        break;
      }
      case LayerKind::prelu:
        holds(s.n == 1 || s.n == l.in, "there is one slope, or one for each column");
        [[fallthrough]];
      default:
        holds(l.out == l.in, "this layer gives as many columns as it takes");
    }
    if (s.kind == LayerKind::dropout) holds(s.a >= 0 && s.a < 1, "dropout leaves nothing");
  }

  static Arrays arrays(const Data& d) {
    const auto as = [](const void* p) { return static_cast<const T*>(p); };
    return {d.n, as(d.X), as(d.y), as(d.w), d.classes, d.n_targets};
  }
  static LossOf<T> loss_of(const LossSpec& s) {
    return {s.kind, T(s.a), static_cast<const T*>(s.weight), s.ignored};
  }
  static std::vector<Place> places(const std::vector<Slot>& slots) {
    std::vector<Place> found;
    for (const Slot& s : slots) found.push_back({s.rows, s.columns, s.at, s.at + s.length});
    return found;
  }
  const Slot& slot_of(int buffer, int i) const {
    return buffer == 5 ? statistic_slots_.at(i) : slots_.at(i);
  }
  T* memory(int buffer) {
    if (buffer == 5) return statistics_.data();
    return (buffer == 0 ? theta_ : need(buffer == 1 ? grad_ : state_[buffer - 2])).data();
  }

  Buffer<T>& need(Buffer<T>& b) {
    if (b.size() != size_) b.resize(size_);
    return b;
  }

  void add_slots(Layer& layer) {
    const auto add = [](std::vector<Slot>& to, long& size, Slot::Form form, int rows, int columns) {
      long length = form == Slot::matrix ? (long)panels<T>(rows) * p * columns
                                         : ((long)rows * columns + p - 1) / p * p;
      to.push_back({form, rows, columns, size, length});
      size += length;
      return (int)to.size() - 1;
    };
    const auto parameter = [&](Slot::Form form, int rows, int columns = 1) {
      layer.slots.push_back(add(slots_, size_, form, rows, columns));
    };
    switch (layer.spec.kind) {
      case LayerKind::linear:
        parameter(Slot::matrix, layer.out, layer.in);
        if (layer.spec.bias) parameter(Slot::vector, layer.out);
        break;
      case LayerKind::prelu:
        parameter(Slot::vector, layer.spec.n);
        break;
      case LayerKind::batch_norm:
        if (layer.spec.bias) {
          parameter(Slot::vector, layer.out);
          parameter(Slot::vector, layer.out);
        }
        for (int i = 0; i < 2; ++i)
          layer.statistics.push_back(
              add(statistic_slots_, statistics_size_, Slot::vector, layer.out, 1));
        break;
      case LayerKind::layer_norm:
        if (layer.spec.bias) parameter(Slot::vector, layer.out);
        if (layer.spec.bias && layer.spec.n) parameter(Slot::vector, layer.out);
        break;
      case LayerKind::input:
        for (size_t k = 0; k < layer.spec.codes.size(); ++k)
          if (layer.spec.widths[k])
            parameter(Slot::plain, layer.spec.codes[k] + 1, layer.spec.widths[k]);
        break;
      default:
        break;
    }
  }

  template <bool IN> static void moved(const Slot& s, T* all, T* outside) {
    T* flat = all + s.at;
    const auto one = [](T& in, T& out) {
      if constexpr (IN) in = out;
      else out = in;
    };
    if (s.form != Slot::matrix) {
      for (long i = 0; i < (long)s.rows * s.columns; ++i) one(flat[i], outside[i]);
      return;
    }
    for (int o = 0; o < s.rows; ++o)
      for (int i = 0; i < s.columns; ++i)
        one(flat[((long)(o / p) * s.columns + i) * p + o % p], outside[(long)o * s.columns + i]);
  }

  void reserve(long n) {
    if (cap_ && n <= cap_) return;
    const long cap = n | 1;  // odd: lines of neighbouring panels do not fall on the same cache sets
    input_.resize(panels<T>(n_inputs_) * cap * p);
    spare_.resize(panels<T>(n_outputs()) * cap * p);
    for (Layer& layer : layers_) {
      const long area = panels<T>(layer.out) * cap * p;
      layer.y.resize(area);
      layer.dy.resize(area);
      if (layer.spec.kind == LayerKind::batch_norm) layer.kept.resize(2 * panels<T>(layer.out) * p);
      if (layer.spec.kind == LayerKind::layer_norm) layer.kept.resize(2 * cap);
      if (layer.spec.kind == LayerKind::dropout) layer.kept.resize(area);
      if (layer.spec.kind == LayerKind::linear)
        layer.turned.resize((long)panels<T>(layer.in) * p * layer.out);
    }
    cap_ = cap;  // last: where memory runs out, the buffers are still as large as it says
  }

  // Rows of X, row-major, into panels.
  void gather(const T* X, const int64_t* order, int n) {
    constexpr int ahead = 8;
    for (int b = 0; b < n; ++b) {
      if (order && b + ahead < n) {  // rows at random are far away: ask for them in time
        const char* later = reinterpret_cast<const char*>(X + order[b + ahead] * n_inputs_);
        for (long byte = 0; byte < (long)(n_inputs_ * sizeof(T)); byte += 64)
          __builtin_prefetch(later + byte);
      }
      const T* row = X + (order ? order[b] : b) * n_inputs_;
      T* to = input_.data() + (long)b * p;
      int c = 0;
      for (; c + p <= n_inputs_; c += p, to += cap_ * p) std::memcpy(to, row + c, 64);
      for (int i = 0; c + i < n_inputs_; ++i) to[i] = row[c + i];
    }
  }

  struct Batch {
    const T* y = nullptr;
    const int64_t* classes = nullptr;
    const T* w = nullptr;
  };

  // The batch's targets and weights, next to each other.
  Batch target(const Arrays& rows, long from, int n, const int64_t* order) {
    const int width = rows.n_targets;
    if (!order)
      return {rows.y ? rows.y + from * width : nullptr, rows.classes ? rows.classes + from : nullptr,
              rows.w ? rows.w + from : nullptr};
    Batch found;
    if (rows.y) {
      batch_y_.resize((long)n * width);
      for (int b = 0; b < n; ++b)
        for (int o = 0; o < width; ++o) batch_y_[(long)b * width + o] = rows.y[order[b] * width + o];
      found.y = batch_y_.data();
    }
    if (rows.classes) {
      batch_c_.resize(n);
      for (int b = 0; b < n; ++b) batch_c_[b] = rows.classes[order[b]];
      found.classes = batch_c_.data();
    }
    if (rows.w) {
      batch_w_.resize(n);
      for (int b = 0; b < n; ++b) batch_w_[b] = rows.w[order[b]];
      found.w = batch_w_.data();
    }
    return found;
  }

  Summed batch_loss(const LossOf<T>& loss, int n, const T* z, const Batch& t, T* dz) {
    if (loss.kind == LossKind::cross_entropy || loss.kind == LossKind::nll)
      return by_class(loss, n, n_outputs(), cap_, z, t.classes, t.y, t.w, dz);
    return elementwise(loss, n, n_outputs(), cap_, z, t.y, t.w, dz);
  }

  T* theta(const Layer& layer, size_t i) {
    return i < layer.slots.size() ? theta_.data() + slots_[layer.slots[i]].at : nullptr;
  }
  T* grad(const Layer& layer, size_t i) {
    return i < layer.slots.size() ? grad_.data() + slots_[layer.slots[i]].at : nullptr;
  }

  template <class F> static void with_activation(const LayerSpec& s, F f) {
    const T a = T(s.a), b = T(s.b);
    switch (s.kind) {
      case LayerKind::relu: return f(ReLU<T>{a, b});
      case LayerKind::leaky_relu: return f(LeakyReLU<T>{a, b});
      case LayerKind::elu: return f(ELU<T>{a, b});
      case LayerKind::selu: return f(SELU<T>{a, b});
      case LayerKind::gelu: return f(GELU<T>{a, b});
      case LayerKind::gelu_tanh: return f(GELUTanh<T>{a, b});
      case LayerKind::silu: return f(SiLU<T>{a, b});
      case LayerKind::mish: return f(Mish<T>{a, b});
      case LayerKind::softplus: return f(Softplus<T>{a, b});
      case LayerKind::tanh: return f(Tanh<T>{a, b});
      case LayerKind::sigmoid: return f(Sigmoid<T>{a, b});
      case LayerKind::hardtanh: return f(Hardtanh<T>{a, b});
      default: throw std::logic_error("no activation");
    }
  }

  const T* forward(int n, bool training) {
    const T* x = input_.data();
    const long step = cap_ * p;
    for (size_t k = 0; k < layers_.size(); ++k) {
      Layer& l = layers_[k];
      T* y = l.y.data();
      switch (l.spec.kind) {
        case LayerKind::linear:
          times<T>(n, l.in, panels<T>(l.out), x, step, theta(l, 0), (long)l.in * p, theta(l, 1), y, step);
          break;
        case LayerKind::identity:
          std::memcpy(y, x, panels<T>(l.out) * step * sizeof(T));
          break;
        case LayerKind::dropout:
          dropout(l, n, x, y, training);
          break;
        case LayerKind::prelu:
          for (int q = 0; q < panels<T>(l.out); ++q)
            for (long i = 0; i < (long)n * p; ++i) {
              const T one = x[q * step + i];
              const int c = q * p + i % p;
              y[q * step + i] = one > 0 ? one : one * theta(l, 0)[l.spec.n == 1 ? 0 : c < l.out ? c : 0];
            }
          break;
        case LayerKind::batch_norm: {
          if (training) ++l.batches;
          T* stats = statistics_.data();
          const T factor = l.spec.b < 0 ? T(1) / std::max(l.batches, 1L) : T(l.spec.b);
          batch_norm<T>({T(l.spec.a), T(l.spec.b)}, training, n, l.out, cap_, x, y, theta(l, 0),
                        theta(l, 1), stats + statistic_slots_[l.statistics[0]].at,
                        stats + statistic_slots_[l.statistics[1]].at, factor, l.kept.data());
          break;
        }
        case LayerKind::layer_norm:
          layer_norm<T>(T(l.spec.a), n, l.out, cap_, x, y, theta(l, 0), theta(l, 1), l.kept.data());
          break;
        case LayerKind::softmax:
        case LayerKind::log_softmax:
          softmax<T>(l.spec.kind == LayerKind::log_softmax, n, l.out, cap_, x, y);
          break;
        case LayerKind::input:
          spread(l, n, x, y);
          break;
        default:
          with_activation(l.spec, [&](auto f) { activate<T>(f, n, l.out, cap_, x, y); });
      }
      x = y;
    }
    return x;
  }

  void backward(int n) {
    const long step = cap_ * p;
    bool wanted = true;  // whether anything before this layer learns
    for (size_t k = layers_.size(); k-- > 0 && wanted;) {
      Layer& l = layers_[k];
      const T* x = k ? layers_[k - 1].y.data() : input_.data();
      T* dy = l.dy.data();
      T* dx = k ? layers_[k - 1].dy.data() : nullptr;
      wanted = false;
      for (size_t j = 0; j < k; ++j) wanted = wanted || !layers_[j].slots.empty();
      switch (l.spec.kind) {
        case LayerKind::linear:
          weight_gradient<T>(n, l.in, panels<T>(l.out), x, step, dy, step, grad(l, 0), (long)l.in * p);
          if (l.spec.bias)
            for (int q = 0; q < panels<T>(l.out); ++q)
              for (int c = 0; c < p; c += L<T>) {
                typename Of<T>::V sum = {};
                for (int b = 0; b < n; ++b) sum += at(dy + q * step + (long)b * p + c);
                at(grad(l, 1) + q * p + c) = sum;
              }
          if (wanted) {
            turned<T>(l.in, l.out, theta(l, 0), l.turned.data());
            times<T>(n, l.out, panels<T>(l.in), dy, step, l.turned.data(), (long)l.out * p, nullptr, dx, step);
          }
          break;
        case LayerKind::identity:
          if (wanted) std::memcpy(dx, dy, panels<T>(l.out) * step * sizeof(T));
          break;
        case LayerKind::dropout:
          if (wanted)
            for (int q = 0; q < panels<T>(l.out); ++q)
              for (long i = q * step; i < q * step + (long)n * p; i += L<T>)
                at(dx + i) = at(dy + i) * at(l.kept.data() + i);
          break;
        case LayerKind::prelu: {
          T* g = grad(l, 0);
          std::fill(g, g + slots_[l.slots[0]].length, T(0));
          for (int b = 0; b < n; ++b)
            for (int c = 0; c < l.out; ++c) {
              const long i = (c / p) * step + (long)b * p + c % p;
              const int s = l.spec.n == 1 ? 0 : c;
              if (!(x[i] > 0)) g[s] += dy[i] * x[i];
              if (wanted) dx[i] = x[i] > 0 ? dy[i] : dy[i] * theta(l, 0)[s];
            }
          break;
        }
        case LayerKind::batch_norm:
          batch_norm_back<T>(n, l.out, cap_, x, dy, dx ? dx : dy, theta(l, 0), grad(l, 0), grad(l, 1),
                             l.kept.data());
          break;
        case LayerKind::layer_norm:
          for (size_t s = 0; s < l.slots.size(); ++s)
            std::fill(grad(l, s), grad(l, s) + slots_[l.slots[s]].length, T(0));
          layer_norm_back<T>(n, l.out, cap_, x, dy, dx ? dx : dy, theta(l, 0), grad(l, 0), grad(l, 1),
                             l.kept.data());
          break;
        case LayerKind::softmax:
        case LayerKind::log_softmax:
          if (wanted)
            softmax_back<T>(l.spec.kind == LayerKind::log_softmax, n, l.out, cap_, l.y.data(), dy, dx);
          break;
        case LayerKind::input:
          collect(l, n, x, dy);
          break;
        default:
          if (wanted)
            with_activation(l.spec, [&](auto f) {
              deactivate<T>(f, n, l.out, cap_, x, l.y.data(), dy, dx);
            });
      }
    }
  }

  // Numbers pass; a code becomes one-hot columns or a row of its table. Code 0 becomes zeros.
  void spread(Layer& l, int n, const T* x, T* y) {
    const long step = cap_ * p;
    const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
    for (int b = 0; b < n; ++b) {
      int to = 0, table = 0;
      for (; to < l.spec.n; ++to) y[place(to, b)] = x[place(to, b)];
      for (size_t k = 0; k < l.spec.codes.size(); ++k) {
        const int code = (int)x[place(l.spec.n + k, b)], width = l.spec.widths[k];
        if (width) {
          const T* row = theta(l, table++) + (long)code * width;
          for (int c = 0; c < width; ++c) y[place(to + c, b)] = row[c];
          to += width;
        } else {
          for (int c = 0; c < l.spec.codes[k]; ++c) y[place(to + c, b)] = T(code == c + 1);
          to += l.spec.codes[k];
        }
      }
    }
  }

  void collect(Layer& l, int n, const T* x, const T* dy) {
    const long step = cap_ * p;
    const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
    for (size_t s = 0; s < l.slots.size(); ++s)
      std::fill(grad(l, s), grad(l, s) + slots_[l.slots[s]].length, T(0));
    for (int b = 0; b < n; ++b) {
      int from = l.spec.n, table = 0;
      for (size_t k = 0; k < l.spec.codes.size(); ++k) {
        const int code = (int)x[place(l.spec.n + k, b)], width = l.spec.widths[k];
        if (width) {
          T* row = grad(l, table++) + (long)code * width;
          if (code)  // row 0 is no level: it stays zeros, as torch's padding_idx
            for (int c = 0; c < width; ++c) row[c] += dy[place(from + c, b)];
        }
        from += width ? width : l.spec.codes[k];
      }
    }
  }

  void dropout(Layer& l, int n, const T* x, T* y, bool training) {
    const long step = cap_ * p;
    const T share = T(l.spec.a), scale = 1 / (1 - share);
    const uint64_t limit = l.spec.a * 4294967296.0;
    for (int q = 0; q < panels<T>(l.out); ++q)
      for (long i = q * step; i < q * step + (long)n * p; ++i) {
        const T keep = training ? ((mixed(seed_ + drawn_++) >> 32) < limit ? T(0) : scale) : T(1);
        l.kept.data()[i] = keep;
        y[i] = x[i] * keep;
      }
  }

  void step(std::vector<Group>& groups, const double* rates, OptimizerKind kind) {
    for (size_t i = 0; i < groups.size(); ++i) {
      if (rates) groups[i].lr = rates[i];
      update<T>(kind, groups[i], theta_.data(), grad_.data(), need(state_[0]).data(),
                need(state_[1]).data(), need(state_[2]).data());
    }
  }

  // Outputs of every layer for the batch that has just gone through, and gradients before clipping.
  void look_at_step(int n) {
    for (size_t k = 0; k < layers_.size(); ++k) {
      Layer& l = layers_[k];
      const long step = cap_ * p;
      const T* x = k ? layers_[k - 1].y.data() : input_.data();
      const T* y = l.y.data();
      LayerSeen& s = l.seen;
      for (int q = 0; q < panels<T>(l.out); ++q) {
        const int columns = std::min(p, l.out - q * p);
        for (long b = 0; b < n; ++b)
          for (int c = 0; c < columns; ++c) {
            const double one = y[q * step + b * p + c];
            s.sum += one;
            s.squares += one * one;
            s.zeros += one == 0;
          }
      }
      s.outputs += double(n) * l.out;
      if (l.spec.kind >= LayerKind::relu)
        with_activation(l.spec, [&](auto f) {
          s.saturated += saturated<T>(f, n, l.out, cap_, x, y);
        });
    }
    std::copy(theta_.data(), theta_.data() + size_, before_.data());
    for (size_t i = 0; i < slots_.size(); ++i) {
      parameters_seen_[i].steps += 1;
      parameters_seen_[i].gradient += squared(slots_[i], grad_.data() + slots_[i].at);
    }
  }

  void look_at_update() {
    T* before = before_.data();
    for (long i = 0; i < size_; i += L<T>) at(before + i) = at(theta_.data() + i) - at(before + i);
    for (size_t i = 0; i < slots_.size(); ++i)
      parameters_seen_[i].update += squared(slots_[i], before + slots_[i].at);
  }

  // By value, then by norm (Pascanu et al., 2013), each if above 0.
  void clip(double value, double norm) {
    T* g = grad_.data();
    if (value > 0)
      for (long i = 0; i < size_; i += L<T>) at(g + i) = within<T>(at(g + i), T(-value), T(value));
    if (norm > 0) {
      double squares = 0;
      for (const Slot& s : slots_) squares += squared(s, g + s.at);
      const double by = norm / (std::sqrt(squares) + 1e-6);
      if (!(by >= 1))  // also NaN, which torch spreads to every gradient
        for (long i = 0; i < size_; i += L<T>) at(g + i) *= T(by);
    }
  }

  // Sum of squares of a parameter, without what fills up its panels.
  static double squared(const Slot& s, const T* flat) {
    const bool matrix = s.form == Slot::matrix;
    const long columns = matrix ? s.rows : (long)s.rows * s.columns, deep = matrix ? s.columns : 1;
    double sum = 0;
    for (long c = 0; c < columns; c += p)
      for (long k = 0; k < deep; ++k)
        for (long i = 0; i < std::min<long>(p, columns - c); ++i) {
          const double one = flat[c * deep + k * p + i];
          sum += one * one;
        }
    return sum;
  }
};

}  // namespace LW_SPACE
