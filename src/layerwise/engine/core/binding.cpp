// The core to Python: arrays in, plain values out, the interpreter's lock released while computing.
//
// Nothing that comes from Python is trusted: sizes, types, row numbers, classes, codes and ranges of
// the buffers are all looked at before the core reads memory by them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>

#include "epochs.hpp"
#include "request.hpp"

namespace nb = nanobind;
using namespace nb::literals;

// The instruction sets this build has; each is a core.cpp of its own.
#define LW_DECLARE(NAME) std::unique_ptr<Core> NAME(const std::vector<LayerSpec>&, int, bool)
LW_DECLARE(make_plain);
#ifdef LW_X86
LW_DECLARE(make_v3);
LW_DECLARE(make_v4);
#endif

using Make = std::unique_ptr<Core> (*)(const std::vector<LayerSpec>&, int, bool);

static std::vector<std::pair<std::string, Make>> sets() {
  std::vector<std::pair<std::string, Make>> found;
#ifdef LW_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) found.push_back({"x86-64-v4", make_v4});
  if (__builtin_cpu_supports("x86-64-v3")) found.push_back({"x86-64-v3", make_v3});
#endif
  found.push_back({LW_PLAIN_NAME, make_plain});
  return found;
}

using Array = nb::ndarray<nb::ro, nb::device::cpu, nb::c_contig>;  // to read from
using Out = nb::ndarray<nb::device::cpu, nb::c_contig>;            // to write into
using Order = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Orders = nb::ndarray<const int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Rates = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

static const std::map<std::string, LayerKind> LAYERS = {
    {"Linear", LayerKind::linear}, {"Identity", LayerKind::identity},
    {"Dropout", LayerKind::dropout}, {"PReLU", LayerKind::prelu},
    {"BatchNorm1d", LayerKind::batch_norm}, {"LayerNorm", LayerKind::layer_norm},
    {"Softmax", LayerKind::softmax}, {"LogSoftmax", LayerKind::log_softmax},
    {"InputLayer", LayerKind::input}, {"ReLU", LayerKind::relu},
    {"LeakyReLU", LayerKind::leaky_relu}, {"ELU", LayerKind::elu}, {"SELU", LayerKind::selu},
    {"GELU", LayerKind::gelu}, {"GELU tanh", LayerKind::gelu_tanh}, {"SiLU", LayerKind::silu},
    {"Mish", LayerKind::mish}, {"Softplus", LayerKind::softplus}, {"Tanh", LayerKind::tanh},
    {"Sigmoid", LayerKind::sigmoid}, {"Hardtanh", LayerKind::hardtanh}};
static const std::map<std::string, LossKind> LOSSES = {
    {"mse", LossKind::mse}, {"l1", LossKind::l1}, {"smooth_l1", LossKind::smooth_l1},
    {"huber", LossKind::huber}, {"bce", LossKind::bce}, {"bce_logits", LossKind::bce_logits},
    {"cross_entropy", LossKind::cross_entropy}, {"nll", LossKind::nll}};
static const std::map<std::string, OptimizerKind> OPTIMIZERS = {
    {"SGD", OptimizerKind::sgd}, {"Adam", OptimizerKind::adam}, {"AdamW", OptimizerKind::adam},
    {"NAdam", OptimizerKind::nadam}, {"RMSprop", OptimizerKind::rmsprop},
    {"Adagrad", OptimizerKind::adagrad}};

template <class K>
static K named(const std::map<std::string, K>& known, const std::string& name) {
  const auto found = known.find(name);
  if (found == known.end()) throw std::invalid_argument("the core does not know " + name);
  return found->second;
}

static void require(bool right, const std::string& otherwise) {
  if (!right) throw std::invalid_argument(otherwise);
}

// kind, columns out, whether it has a bias, n, a, b, codes, widths
using Planned =
    std::tuple<std::string, int, bool, int, double, double, std::vector<int>, std::vector<int>>;

struct Held {
  std::unique_ptr<Core> core;
  std::vector<LayerSpec> plan;
  bool in_double;
  int n_inputs;
  std::vector<Group> groups;
  ToldOfSeveral told;
  std::atomic<bool> busy = false;

  Held(const std::vector<Planned>& planned, int n_inputs, bool in_double, const std::string& set,
       const std::vector<std::vector<double>>& edges)
      : in_double(in_double), n_inputs(n_inputs) {
    for (const auto& [kind, out, bias, n, a, b, codes, widths] : planned)
      plan.push_back({named(LAYERS, kind), out, bias, n, a, b, codes, widths, {}});
    if (!edges.empty()) {
      require(!plan.empty() && plan[0].kind == LayerKind::input, "only an input layer has edges");
      plan[0].edges = edges;
    }
    for (const auto& [name, make] : sets())
      if (set.empty() || set == name) {
        core = make(plan, n_inputs, in_double);
        return;
      }
    throw std::invalid_argument("this processor or build has no " + set);
  }

  nb::dlpack::dtype dtype() const { return in_double ? nb::dtype<double>() : nb::dtype<float>(); }

  // An array of the network's type and of just this shape.
  template <class A> void check(const A& a, std::initializer_list<size_t> shape, const char* what) const {
    bool right = a.ndim() == shape.size();
    for (size_t i = 0; right && i < shape.size(); ++i) right = a.shape(i) == shape.begin()[i];
    if (!right) {
      std::string found, expected;
      for (size_t i = 0; i < a.ndim(); ++i) found += (i ? ", " : "") + std::to_string(a.shape(i));
      for (const size_t n : shape) expected += (expected.empty() ? "" : ", ") + std::to_string(n);
      throw std::invalid_argument(std::string(what) + " has shape (" + found + "); expected (" +
                                  expected + ")");
    }
    if (a.dtype() != dtype())
      throw std::invalid_argument(std::string(what) + " has another type than the network, float" +
                                  (in_double ? "64" : "32"));
    if ((uintptr_t)a.data() % (in_double ? 8 : 4))
      throw std::invalid_argument(std::string(what) + " is not aligned");
  }

  size_t size() const {
    const auto places = core->parameters();
    return places.empty() ? 0 : places.back().to;
  }
};

// One call at a time: while one computes without the interpreter's lock, another thread, or a signal's
// handler, must not reach into the same network.
class Turn {
 public:
  explicit Turn(Held& h) : h_(h) {
    if (h.busy.exchange(true)) throw std::runtime_error("this network is at work in another call");
  }
  ~Turn() { h_.busy = false; }
  Turn(const Turn&) = delete;

 private:
  Held& h_;
};

// Rows of X (n, n_inputs); the codes of an input layer are those that it has.
template <class T> static bool codes_known(const LayerSpec& input, int n_inputs, const T* X, size_t n) {
  for (size_t b = 0; b < n; ++b)
    for (size_t k = 0; k < input.codes.size(); ++k) {
      const T code = X[b * n_inputs + input.n + k];
      if (!(code > -1 && code < T(input.codes[k]) + 1)) return false;  // NaN neither
    }
  return true;
}

static void check_rows(const Held& h, const Array& X) {
  require(X.ndim() == 2, "X has to be of shape (rows, columns)");
  h.check(X, {X.shape(0), (size_t)h.n_inputs}, "X");
  require(X.shape(0) < (size_t)std::numeric_limits<int>::max(), "X has too many rows");
  if (h.plan.empty() || h.plan[0].kind != LayerKind::input) return;
  const size_t n = X.shape(0);
  require(h.in_double
              ? codes_known(h.plan[0], h.n_inputs, static_cast<const double*>(X.data()), n)
              : codes_known(h.plan[0], h.n_inputs, static_cast<const float*>(X.data()), n),
          "X has a code that its category does not have");
}

struct LossHeld {
  std::string kind;
  double a;
  nb::object weight;
  long ignored;
  bool classes;  // y are class indices
};

// The rows and the loss by address, for as long as this lives.
struct Given {
  Data rows;
  LossSpec loss;
  std::vector<Array> keep;

  Given(const Held& h, const Array& X, const Array& y, const std::optional<Array>& w,
        const LossHeld& l) {
    check_rows(h, X);
    const size_t n = X.shape(0), outputs = h.core->n_outputs();
    rows.n = n;
    rows.X = X.data();
    rows.n_targets = outputs;
    loss = {named(LOSSES, l.kind), l.a, nullptr, l.ignored};
    const bool by_class = loss.kind == LossKind::cross_entropy || loss.kind == LossKind::nll;
    require(l.classes ? by_class : loss.kind != LossKind::nll,
            "this loss takes another kind of y");
    if (l.classes) {
      require(y.dtype() == nb::dtype<int64_t>() && y.ndim() == 1 && y.shape(0) == n &&
                  (uintptr_t)y.data() % 8 == 0,
              "y has to be " + std::to_string(n) + " class indices of type int64");
      rows.classes = static_cast<const int64_t*>(y.data());
      for (size_t b = 0; b < n; ++b) {
        const int64_t c = rows.classes[b];
        if (c == l.ignored || (c >= 0 && c < (int64_t)outputs)) continue;
        require(false, "row " + std::to_string(b) + " of y is class " + std::to_string(c) +
                           "; the network has " + std::to_string(outputs) + " outputs");
      }
    } else {
      h.check(y, {n, outputs}, "y");
      rows.y = y.data();
    }
    if (w) {
      h.check(*w, {n}, "w");
      rows.w = w->data();
    }
    if (!l.weight.is_none()) {
      keep.push_back(nb::cast<Array>(l.weight));
      h.check(keep.back(), {outputs}, "the loss's weight");
      loss.weight = keep.back().data();
    }
  }
};

// Row numbers of one epoch, or of several.
template <class A> static void check_order(const A& order, long n) {
  require((uintptr_t)order.data() % 8 == 0, "order is not aligned");
  require(order.shape(order.ndim() - 1) < (size_t)std::numeric_limits<int>::max(),
          "order has too many rows");
  for (size_t i = 0; i < order.size(); ++i) {
    const int64_t row = order.data()[i];
    if (row >= 0 && row < n) continue;
    require(false, "order names row " + std::to_string(row) + " of " + std::to_string(n));
  }
}

constexpr long COUNTED = 1L << 53;  // what torch's own counters can hold

// Which runs of the buffers the optimizer touches: whole panels inside them.
static void check_groups(const Held& h) {
  const long size = h.size(), panel = h.in_double ? 8 : 16;
  for (const Group& g : h.groups) {
    require(g.steps >= 0 && g.steps < COUNTED, "a group has been through no such number of steps");
    require(g.from >= 0 && g.from <= g.to && g.to <= size && g.from % panel == 0 && g.to % panel == 0,
            "a group starts or stops where no parameter does");
  }
}

// Of an epoch: a last single row joins the batch before.
static long n_steps(long n, long batch_size) {
  const long steps = n / batch_size + (n % batch_size != 0);
  return steps > 1 && n - (steps - 1) * batch_size == 1 ? steps - 1 : steps;
}

static const Place place_of(const Held& h, int buffer, int slot) {
  require(buffer >= 0 && buffer <= 7, "there are the buffers 0 to 7");
  const auto places = buffer == 5 || buffer == 7 ? h.core->statistics() : h.core->parameters();
  require(slot >= 0 && slot < (int)places.size(), "there is no such parameter");
  return places[slot];
}

// Outside arrays of a parameter may have any shape with as many numbers.
template <class A> static void check_place(const Held& h, const A& a, const Place& p) {
  require(a.size() == (size_t)p.rows * p.columns, "the array has " + std::to_string(a.size()) +
          " numbers; expected " + std::to_string((size_t)p.rows * p.columns));
  require(a.dtype() == h.dtype(), "the array has another type than the network");
  require((uintptr_t)a.data() % (h.in_double ? 8 : 4) == 0, "the array is not aligned");
}

// Whether a signal is waiting; its handler runs, and what it raises ends the work.
static void let_signals_in() {
  nb::gil_scoped_acquire lock;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// The same for threads that no signal reaches: `stop` is asked too, if it is not None.
static Poll asking(const nb::object& stop) {
  if (stop.is_none()) return let_signals_in;
  return [&stop] {
    nb::gil_scoped_acquire lock;
    bool ends = PyErr_CheckSignals() != 0;
    if (!ends && nb::cast<bool>(stop())) {
      PyErr_SetNone(PyExc_KeyboardInterrupt);
      ends = true;
    }
    if (ends) throw nb::python_error();
  };
}

// What an epoch is asked for, but for its order.
// layers: outputs, sum, squares, zeros, saturated, beyond, units, dead
// parameters: steps, gradient, update, weight
static std::pair<std::vector<std::array<double, 8>>, std::vector<std::array<double, 4>>> plain(
    const Seen& seen) {
  std::pair<std::vector<std::array<double, 8>>, std::vector<std::array<double, 4>>> found;
  for (const LayerSeen& s : seen.first)
    found.first.push_back({s.outputs, s.sum, s.squares, s.zeros, s.saturated, s.beyond, s.units, s.dead});
  for (const ParameterSeen& s : seen.second)
    found.second.push_back({s.steps, s.gradient, s.update, s.weight});
  return found;
}

static Request request(const Held& h, long n, long n_epochs, long batch_size,
                       const std::string& optimizer, const std::optional<Rates>& rates,
                       double clip_norm, double clip_value, double seconds) {
  check_groups(h);
  require(batch_size >= 1, "batch_size has to be at least 1");
  Request ask;
  ask.batch_size = batch_size;
  ask.clip_norm = clip_norm;
  ask.clip_value = clip_value;
  ask.deadline = now() + seconds;
  ask.optimizer = named(OPTIMIZERS, optimizer);
  if (rates) {
    require(rates->shape(1) == h.groups.size() &&
                (long)rates->shape(0) >= n_epochs * n_steps(n, batch_size) &&
                (uintptr_t)rates->data() % 8 == 0,
            "rates have to be of shape (steps, groups)");
    ask.rates = rates->data();
  }
  return ask;
}

// All rows, or those of an index.
static Part part_of(const Data& rows, const std::optional<Order>& index) {
  if (!index) return {nullptr, rows.n};
  check_order(*index, rows.n);
  return {index->data(), (long)index->shape(0)};
}

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // what still lives when Python ends is no fault of the user
  m.def("instruction_sets", [] {
    std::vector<std::string> names;
    for (const auto& [name, make] : sets()) names.push_back(name);
    return names;
  });

  nb::class_<Group>(m, "Group")
      .def(nb::init<>())
      .def_rw("start", &Group::from).def_rw("stop", &Group::to)
      .def_rw("steps", &Group::steps).def_rw("lr", &Group::lr)
      .def_rw("weight_decay", &Group::weight_decay).def_rw("momentum", &Group::momentum)
      .def_rw("dampening", &Group::dampening).def_rw("beta1", &Group::beta1)
      .def_rw("beta2", &Group::beta2).def_rw("eps", &Group::eps).def_rw("alpha", &Group::alpha)
      .def_rw("lr_decay", &Group::lr_decay).def_rw("momentum_decay", &Group::momentum_decay)
      .def_rw("mu_product", &Group::mu_product).def_rw("nesterov", &Group::nesterov)
      .def_rw("amsgrad", &Group::amsgrad).def_rw("centered", &Group::centered)
      .def_rw("maximize", &Group::maximize).def_rw("decoupled", &Group::decoupled)
      .def_rw("product_in_double", &Group::product_in_double);

  nb::class_<LossHeld>(m, "Loss")
      .def("__init__",
           [](LossHeld* self, std::string kind, double a, nb::object weight, long ignored,
              bool classes) {
             named(LOSSES, kind);
             new (self) LossHeld{kind, a, weight, ignored, classes};
           },
           "kind"_a, "a"_a = 1.0, "weight"_a = nb::none(), "ignored"_a = -100,
           "classes"_a = false);

  nb::class_<Outcome>(m, "Outcome")
      .def_ro("loss", &Outcome::loss).def_ro("steps", &Outcome::steps)
      .def_ro("rows", &Outcome::rows).def_ro("bad_from", &Outcome::bad_from)
      .def_ro("bad_to", &Outcome::bad_to).def_ro("complete", &Outcome::complete);

  nb::class_<Passed>(m, "Passed")
      .def_ro("outcome", &Passed::outcome).def_ro("loss", &Passed::loss)
      .def_ro("ended", &Passed::ended)
      .def_prop_ro("seen", [](const Passed& p) { return plain(p.seen); });

  nb::class_<ToldOfSeveral>(m, "Told")
      .def_ro("passed", &ToldOfSeveral::passed).def_ro("best", &ToldOfSeveral::best)
      .def_ro("last", &ToldOfSeveral::last);

  nb::class_<Held>(m, "Network")
      .def(nb::init<const std::vector<Planned>&, int, bool, const std::string&,
                    const std::vector<std::vector<double>>&>(),
           "plan"_a, "n_inputs"_a, "in_double"_a, "instruction_set"_a = "",
           "edges"_a = std::vector<std::vector<double>>())
      .def_prop_ro("n_outputs", [](const Held& h) { return h.core->n_outputs(); })
      .def_prop_ro("parameters",
                   [](const Held& h) {
                     std::vector<std::tuple<int, int, long, long>> found;
                     for (const Place& p : h.core->parameters())
                       found.push_back({p.rows, p.columns, p.from, p.to});
                     return found;
                   })
      .def("put",
           [](Held& h, int buffer, int slot, const Array& from) {
             Turn turn(h);
             require(buffer < 6, "what was kept is only read");
             check_place(h, from, place_of(h, buffer, slot));
             h.core->put(buffer, slot, from.data());
           })
      .def("get",
           [](Held& h, int buffer, int slot, const Out& to) {
             Turn turn(h);
             check_place(h, to, place_of(h, buffer, slot));
             require(buffer < 6 || h.core->has_kept(), "nothing was kept");
             h.core->get(buffer, slot, to.data());
           },
           "buffer"_a, "slot"_a, "to"_a.noconvert())
      .def("batches", [](const Held& h, int layer) { return h.core->batches(layer); })
      .def("kept_batches",
           [](Held& h, int layer) {
             Turn turn(h);
             return h.core->kept_batches(layer);
           })
      .def("set_batches",
           [](Held& h, int layer, long n) {
             Turn turn(h);
             require(n >= 0 && n < COUNTED, "there have been no so many batches");
             h.core->set_batches(layer, n);
           })
      .def("seed",
           [](Held& h, uint64_t s) {
             Turn turn(h);
             h.core->seed(s);
           })
      .def("watch",
           [](Held& h, long every) {
             Turn turn(h);
             require(every >= 0, "every so many steps has to be at least 0");
             h.core->watch(every);
           })
      .def("seen",
           [](Held& h) {
             Turn turn(h);
             return plain(h.core->seen());
           })
      .def_prop_rw("groups",
                   [](Held& h) {
                     Turn turn(h);
                     return h.groups;
                   },
                   [](Held& h, std::vector<Group> groups) {
                     Turn turn(h);
                     h.groups = std::move(groups);
                   })
      .def("predict",
           [](Held& h, const Array& X, const Out& outputs) {
             Turn turn(h);
             check_rows(h, X);
             h.check(outputs, {X.shape(0), (size_t)h.core->n_outputs()}, "outputs");
             nb::gil_scoped_release free;
             h.core->predict(X.data(), X.shape(0), outputs.data(), let_signals_in);
           },
           "X"_a, "outputs"_a.noconvert())
      .def("measure",
           [](Held& h, const Array& X, const Array& y, std::optional<Array> w,
              const LossHeld& loss, const std::optional<Order>& index,
              std::optional<Out> outputs) {
             Turn turn(h);
             const Given given(h, X, y, w, loss);
             const Part part = part_of(given.rows, index);
             if (outputs) h.check(*outputs, {(size_t)part.n, (size_t)h.core->n_outputs()}, "outputs");
             void* to = outputs ? outputs->data() : nullptr;
             nb::gil_scoped_release free;
             return h.core->measure(given.rows, part, given.loss, to, let_signals_in);
           },
           "X"_a, "y"_a, "w"_a.none(), "loss"_a, "index"_a.none() = nb::none(),
           "outputs"_a.none().noconvert() = nb::none())
      .def("gradients",
           [](Held& h, const Array& X, const Array& y, std::optional<Array> w, const LossHeld& loss,
              const Order& order) {
             Turn turn(h);
             const Given given(h, X, y, w, loss);
             check_order(order, given.rows.n);
             require(order.shape(0) > 0, "a batch has at least one row");
             nb::gil_scoped_release free;
             return h.core->gradients(given.rows, order.data(), order.shape(0), given.loss);
           },
           "X"_a, "y"_a, "w"_a.none(), "loss"_a, "order"_a)
      .def("epoch",
           [](Held& h, const Array& X, const Array& y, std::optional<Array> w, const LossHeld& loss,
              const Order& order, long batch_size, const std::string& optimizer,
              std::optional<Rates> rates, double clip_norm, double clip_value, double seconds,
              nb::object stop) {
             Turn turn(h);
             Given given(h, X, y, w, loss);
             check_order(order, given.rows.n);
             given.rows.n = order.shape(0);
             Request ask = request(h, given.rows.n, 1, batch_size, optimizer, rates, clip_norm,
                                   clip_value, seconds);
             ask.order = order.data();
             const Poll poll = asking(stop);
             nb::gil_scoped_release free;
             return h.core->epoch(given.rows, ask, given.loss, h.groups, poll);
           },
           "X"_a, "y"_a, "w"_a.none(), "loss"_a, "order"_a, "batch_size"_a, "optimizer"_a,
           "rates"_a.none() = nb::none(), "clip_norm"_a = 0.0, "clip_value"_a = 0.0,
           "seconds"_a = 1e300, "stop"_a.none() = nb::none())
      // Several epochs in one go; what is told of them is there also when an exception ends them.
      .def("epochs",
           [](Held& h, const Array& X, const Array& y, std::optional<Array> w,
              const LossHeld& loss, const Orders& orders, long batch_size,
              const std::string& optimizer, std::optional<Rates> rates, double clip_norm,
              double clip_value, double seconds, nb::object stop,
              std::optional<std::tuple<Array, Array, std::optional<Array>>> held,
              std::optional<Order> index, std::optional<Order> seeds, std::vector<long> looks,
              std::optional<Out> outputs, double best, double min_delta, long without_gain, long patience, bool begun) {
             Turn turn(h);
             h.told = {};
             Given given(h, X, y, w, loss);
             check_order(orders, given.rows.n);
             Several want;
             want.n_epochs = orders.shape(0);
             want.train = want.held = given.rows;
             want.train.n = orders.shape(1);
             std::optional<Given> other;
             if (held) {
               other.emplace(h, std::get<0>(*held), std::get<1>(*held), std::get<2>(*held), loss);
               want.held = other->rows;
             }
             want.part = part_of(want.held, index);
             want.ask = request(h, want.train.n, want.n_epochs, batch_size, optimizer, rates,
                                clip_norm, clip_value, seconds);
             want.ask.order = orders.data();
             want.n_rates = n_steps(want.train.n, batch_size) * (long)h.groups.size();
             if (seeds) {
               require((long)seeds->shape(0) == want.n_epochs && (uintptr_t)seeds->data() % 8 == 0,
                       "there has to be a seed for each epoch");
               want.seeds = seeds->data();
             }
             require((long)looks.size() == want.n_epochs &&
                         std::all_of(looks.begin(), looks.end(), [](long n) { return n >= 0; }),
                     "there has to be a number of at least 0 for each epoch");
             want.looks = std::move(looks);
             if (outputs) {
               const size_t width = h.core->n_outputs();
               h.check(*outputs, {(size_t)want.n_epochs, (size_t)want.part.n, width}, "outputs");
               want.outputs = static_cast<char*>(outputs->data());
               want.outputs_of_one = want.part.n * width * (h.in_double ? 8 : 4);
             }
             want.best = best;
             want.min_delta = min_delta;
             want.without_gain = without_gain;
             want.patience = patience;
             want.begun = begun;
             const Poll poll = asking(stop);
             nb::gil_scoped_release free;
             run(*h.core, want, given.loss, h.groups, h.told, poll);
           },
           "X"_a, "y"_a, "w"_a.none(), "loss"_a, "orders"_a, "batch_size"_a, "optimizer"_a,
           "rates"_a.none(), "clip_norm"_a, "clip_value"_a, "seconds"_a, "stop"_a.none(),
           "held"_a.none(), "index"_a.none(), "seeds"_a.none(), "looks"_a, "outputs"_a.none().noconvert(),
           "best"_a, "min_delta"_a, "without_gain"_a, "patience"_a, "begun"_a)
      .def_prop_ro("told", [](Held& h) {
        Turn turn(h);
        return h.told;
      });
}
