// A plan as a stack of layers over one flat buffer of parameters: forward and backward for a batch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>
#include <vector>

#include "input.hpp"
#include "layers.hpp"
#include "memory.hpp"
#include "products.hpp"
#include "request.hpp"
#include "steps.hpp"

namespace LW_SPACE {

constexpr int WIDEST = 1 << 24;  // columns or codes: products of two of them stay far inside 64 bits

constexpr uint64_t mixed(uint64_t x) {  // splitmix64: Steele, Lea & Flood (2014)
  x += 0x9E3779B97F4A7C15ULL;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

template <class T> struct Layer {
  LayerSpec spec;
  int in = 0, out = 0;
  std::vector<int> slots;  // of its parameters, in torch's order
  std::vector<int> statistics;
  std::vector<T*> theta, grad;  // where the parameters and their gradients are
  Buffer<T> y, dy, turned, kept;
  Bins<T> bins;
  Steps<T> steps;  // over the bins of the layer before
  Activation<T> activation;
  bool bent = false;           // a linear layer that an activation follows
  bool learns_before = false;  // whether any layer before it has parameters
  bool summed = false;         // whether the gradient of its bias is there already
  long batches = 0;  // that batch normalisation has seen
};

template <class T> struct Stack {
  static constexpr int p = P<T>;

  int n_inputs;
  long cap = 0;  // rows between two panels; long, as are all products with it
  long size = 0, statistics_size = 0;
  std::vector<Layer<T>> layers;
  std::vector<Slot> slots, statistic_slots;
  Buffer<T> theta, grad, statistics, input, spare;

  explicit Stack(const std::vector<LayerSpec>& plan, int n_inputs) : n_inputs(n_inputs) {
    if (n_inputs < 1 || n_inputs > WIDEST) throw std::invalid_argument("no such number of inputs");
    int width = n_inputs;
    for (const LayerSpec& spec : plan) {
      Layer<T> layer;
      layer.spec = spec;
      layer.in = width;
      width = layer.out = spec.out ? spec.out : width;
      check(layer, layers.empty());
      if (spec.kind == LayerKind::input) layer.bins = Bins<T>(spec);
      layers.push_back(std::move(layer));
    }
    bool learns = false;
    for (size_t k = 0; k < layers.size(); ++k) {
      Layer<T>& layer = layers[k];
      add_slots(layer);
      layer.learns_before = std::exchange(learns, learns || !layer.slots.empty());
      layer.activation = activation<T>(layer.spec);
      layer.bent = layer.spec.kind == LayerKind::linear && k + 1 < layers.size() &&
                   layers[k + 1].spec.kind >= LayerKind::relu;
      if (k && layer.spec.kind == LayerKind::linear) layer.steps = Steps<T>(layers[k - 1].spec, layer.out);
    }
    theta.resize(size);
    grad.resize(size);
    for (Layer<T>& layer : layers)
      for (const int slot : layer.slots) {
        layer.theta.push_back(theta.data() + slots[slot].at);
        layer.grad.push_back(grad.data() + slots[slot].at);
      }
    statistics.resize(statistics_size);
    seed(0);
  }

  int n_outputs() const { return layers.empty() ? n_inputs : layers.back().out; }

  // Two seeds' streams have nothing in common, also where the seeds are neighbours.
  void seed(uint64_t s) {
    const uint64_t first = mixed(s);
    for (int i = 0; i < 4 * p; ++i) drawn_[i / p][i % p] = mixed(first + i) >> 32;
  }

  // Room for batches of n rows.
  void reserve(long n) {
    if (cap && n <= cap) return;
    const long rows = n | 1;  // odd: lines of neighbouring panels do not fall on the same cache sets
    input.resize(panels<T>(n_inputs) * rows * p);
    spare.resize(panels<T>(n_outputs()) * rows * p);
    for (Layer<T>& layer : layers) {
      const long area = panels<T>(layer.out) * rows * p;
      layer.y.resize(area);
      layer.dy.resize(area);
      if (layer.spec.kind == LayerKind::batch_norm) layer.kept.resize(2 * panels<T>(layer.out) * p);
      if (layer.spec.kind == LayerKind::layer_norm) layer.kept.resize(2 * rows);
      if (layer.spec.kind == LayerKind::dropout) layer.kept.resize(area);
      if (layer.spec.kind == LayerKind::linear)
        layer.turned.resize((long)panels<T>(layer.in) * p * layer.out);
    }
    cap = rows;  // last: where memory runs out, the buffers are still as large as it says
  }

  // Rows of X, row-major, into panels.
  void gather(const T* X, const int64_t* order, int n) {
    constexpr int ahead = 8;
    for (int b = 0; b < n; ++b) {
      if (order && b + ahead < n) {  // rows at random are far away: ask for them in time
        const char* later = reinterpret_cast<const char*>(X + order[b + ahead] * n_inputs);
        for (long byte = 0; byte < (long)(n_inputs * sizeof(T)); byte += 64)
          __builtin_prefetch(later + byte);
      }
      const T* row = X + (order ? order[b] : b) * n_inputs;
      T* to = input.data() + (long)b * p;
      int c = 0;
      for (; c + p <= n_inputs; c += p, to += cap * p) std::memcpy(to, row + c, 64);
      copy_few(to, row + c, n_inputs - c);
    }
  }

  T* theta_of(const Layer<T>& l, size_t i) { return i < l.slots.size() ? l.theta[i] : nullptr; }
  T* grad_of(const Layer<T>& l, size_t i) { return i < l.slots.size() ? l.grad[i] : nullptr; }

  const T* forward(int n, bool training) {
    const T* x = input.data();
    const long step = cap * p;
    for (size_t k = 0; k < layers.size(); ++k) {
      Layer<T>& l = layers[k];
      T* y = l.y.data();
      switch (l.spec.kind) {
        case LayerKind::linear:
          y = linear(k, n, x);
          k += l.bent;
          break;
        case LayerKind::identity:
          std::memcpy(y, x, panels<T>(l.out) * step * sizeof(T));
          break;
        case LayerKind::dropout:
          if (!training) continue;  // the next layer takes what this one would have taken
          for (int q = 0; q < panels<T>(l.out); ++q) drop(l, n, q * step, x, y);
          break;
        case LayerKind::prelu:
          for (int q = 0; q < panels<T>(l.out); ++q)
            for (long i = 0; i < (long)n * p; ++i) {
              const T one = x[q * step + i];
              const int c = q * p + i % p;
              y[q * step + i] = one > 0 ? one : one * theta_of(l, 0)[l.spec.n == 1 ? 0 : c < l.out ? c : 0];
            }
          break;
        case LayerKind::batch_norm: {
          if (training) ++l.batches;
          T* stats = statistics.data();
          const T factor = l.spec.b < 0 ? T(1) / std::max(l.batches, 1L) : T(l.spec.b);
          batch_norm<T>({T(l.spec.a), T(l.spec.b)}, training, n, l.out, cap, x, y, theta_of(l, 0),
                        theta_of(l, 1), stats + statistic_slots[l.statistics[0]].at,
                        stats + statistic_slots[l.statistics[1]].at, factor, l.kept.data());
          break;
        }
        case LayerKind::layer_norm:
          layer_norm<T>(T(l.spec.a), n, l.out, cap, x, y, theta_of(l, 0), theta_of(l, 1), l.kept.data());
          break;
        case LayerKind::softmax:
        case LayerKind::log_softmax:
          softmax<T>(l.spec.kind == LayerKind::log_softmax, n, l.out, cap, x, y);
          break;
        case LayerKind::input:
          spread<T>(l.spec, l.bins, [&](int t) { return theta_of(l, t); }, n, step, x, y);
          break;
        default:
          for (int q = 0; q < panels<T>(l.out); ++q)
            l.activation.forward(l.spec, n, x + q * step, y + q * step);
      }
      x = y;
    }
    return x;
  }

  void backward(int n) {
    const long step = cap * p;
    for (Layer<T>& l : layers) l.summed = false;
    for (size_t k = layers.size(); k-- > 0;) {
      Layer<T>& l = layers[k];
      const T* x = k ? layers[k - 1].y.data() : input.data();
      T* dy = l.dy.data();
      T* dx = k ? layers[k - 1].dy.data() : nullptr;
      const bool wanted = l.learns_before;
      switch (l.spec.kind) {
        case LayerKind::linear:
          weight_gradient<T>(n, l.in, l.steps.gap(), panels<T>(l.out), x, step, dy, step, grad_of(l, 0),
                             (long)l.in * p);
          l.steps.gradient(n, panels<T>(l.out), dy, step, grad_of(l, 0), (long)l.in * p);
          if (l.spec.bias && !l.summed)
            for (int q = 0; q < panels<T>(l.out); ++q)
              for (int c = 0; c < p; c += L<T>) {
                typename Of<T>::V sum = {};
                for (int b = 0; b < n; ++b) sum += at(dy + q * step + (long)b * p + c);
                at(grad_of(l, 1) + q * p + c) = sum;
              }
          if (wanted) k -= linear_back(k, n);
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
          T* g = grad_of(l, 0);
          std::fill(g, g + slots[l.slots[0]].length, T(0));
          for (int b = 0; b < n; ++b)
            for (int c = 0; c < l.out; ++c) {
              const long i = (c / p) * step + (long)b * p + c % p;
              const int s = l.spec.n == 1 ? 0 : c;
              if (!(x[i] > 0)) g[s] += dy[i] * x[i];
              if (wanted) dx[i] = x[i] > 0 ? dy[i] : dy[i] * theta_of(l, 0)[s];
            }
          break;
        }
        case LayerKind::batch_norm:
          batch_norm_back<T>(n, l.out, cap, x, dy, dx ? dx : dy, theta_of(l, 0), grad_of(l, 0), grad_of(l, 1),
                             l.kept.data());
          break;
        case LayerKind::layer_norm:
          for (size_t s = 0; s < l.slots.size(); ++s)
            std::fill(grad_of(l, s), grad_of(l, s) + slots[l.slots[s]].length, T(0));
          layer_norm_back<T>(n, l.out, cap, x, dy, dx ? dx : dy, theta_of(l, 0), grad_of(l, 0), grad_of(l, 1),
                             l.kept.data());
          break;
        case LayerKind::softmax:
        case LayerKind::log_softmax:
          if (wanted)
            softmax_back<T>(l.spec.kind == LayerKind::log_softmax, n, l.out, cap, l.y.data(), dy, dx);
          break;
        case LayerKind::input:
          for (size_t s = 0; s < l.slots.size(); ++s)
            std::fill(grad_of(l, s), grad_of(l, s) + slots[l.slots[s]].length, T(0));
          collect<T>(l.spec, l.bins, [&](int t) { return grad_of(l, t); }, n, step, x, dy);
          break;
        default:
          if (wanted)
            for (int q = 0; q < panels<T>(l.out); ++q) {
              std::memcpy(dx + q * step, dy + q * step, (long)n * p * sizeof(T));
              l.activation.backward(l.spec, n, x + q * step, l.y.data() + q * step, dx + q * step,
                                    true, nullptr);
            }
      }
      if (!wanted) break;  // nothing before it learns
    }
  }

  // Rows of a panel, from their place in it on. Each lane draws its own stream by Marsaglia's xorshift
  // (2003), so that a register of units takes a dozen instructions: drawn one by one, units cost as
  // much as the products around them.
  void drop(Layer<T>& l, int n, long from, const T* x, T* y) {
    const T scale = 1 / (1 - T(l.spec.a));
    const int32_t limit = std::lround(l.spec.a * (1 << 24));
    alignas(64) uint32_t s[4][p];
    std::memcpy(s, drawn_, sizeof s);
    T* kept = l.kept.data();
    for (long i = from; i < from + (long)n * p; i += p)
      for (int k = 0; k < p; ++k) {
        const uint32_t t = s[0][k] ^ (s[0][k] << 11), last = s[3][k];
        s[0][k] = s[1][k];
        s[1][k] = s[2][k];
        s[2][k] = last;
        s[3][k] = last ^ (last >> 19) ^ t ^ (t >> 8);
        kept[i + k] = (int32_t)(s[3][k] >> 8) < limit ? T(0) : scale;
      }
    std::memcpy(drawn_, s, sizeof s);
    for (long i = from; i < from + (long)n * p; i += L<T>) at(y + i) = at(x + i) * at(kept + i);
  }

 private:
  uint32_t drawn_[4][p];  // of each lane of a panel's row

  // A linear layer, and the activation that follows it while its rows are in the cache.
  T* linear(size_t k, int n, const T* x) {
    Layer<T>& l = layers[k];
    const long step = cap * p;
    T *z = l.y.data(), *y = l.bent ? layers[k + 1].y.data() : z;
    const auto bend = [&](int q, int from, int rows) {
      const long i = q * step + (long)from * p;
      if (l.bent) layers[k + 1].activation.forward(layers[k + 1].spec, rows, z + i, y + i);
    };
    const auto product = [&](auto done) {
      times<T>(n, l.in, l.steps.gap(), panels<T>(l.out), x, step, theta_of(l, 0), (long)l.in * p,
               theta_of(l, 1), z, step, done);
    };
    if (!l.steps) {
      product(bend);
      return y;
    }
    product([](int, int, int) {});
    l.steps.find(n, step, input.data(), x);
    l.steps.forward(n, panels<T>(l.out), theta_of(l, 0), (long)l.in * p, z, step);
    for (int q = 0; q < panels<T>(l.out); ++q) bend(q, 0, n);
    return y;
  }

  // The gradient of a linear layer's inputs; of those of the dropout and of the activation before it,
  // if there are any, with the gradient of the bias before that. Says how many layers it went
  // through besides.
  int linear_back(size_t k, int n) {
    Layer<T>& l = layers[k];
    const long step = cap * p;
    const T* kept = layers[k - 1].spec.kind == LayerKind::dropout ? layers[k - 1].kept.data() : nullptr;
    const size_t end = kept ? k - 1 : k;
    Layer<T>* bend = end >= 2 && layers[end - 2].bent ? &layers[end - 1] : nullptr;
    Layer<T>* before = &layers[bend ? end - 2 : end - 1];
    T* sums = bend && before->spec.bias ? grad_of(*before, 1) : nullptr;
    T* dx = before->dy.data();
    const int first = before->bins.columns() / p;  // no gradient is asked of numbers and their bins
    turned<T>(first * p, l.in, l.out, theta_of(l, 0), l.turned.data());
    times<T>(n, l.out, Gap{}, panels<T>(l.in) - first, l.dy.data(), step,
             l.turned.data() + (long)first * p * l.out, (long)l.out * p, nullptr, dx + first * step,
             step, [&](int some, int from, int rows) {
               const int q = first + some;
               const long i = q * step + (long)from * p;
               if (kept)
                 for (long j = i; j < i + (long)rows * p; j += L<T>) at(dx + j) *= at(kept + j);
               if (bend)
                 bend->activation.backward(bend->spec, rows, before->y.data() + i,
                                           bend->y.data() + i, dx + i, from == 0,
                                           sums ? sums + q * p : nullptr);
             });
    before->summed = bend;
    return (kept ? 1 : 0) + (bend ? 1 : 0);
  }

  // What the passes rely on; a plan that was read from torch has it all.
  static void check(const Layer<T>& l, bool first) {
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
        holds(s.edges.empty() || s.edges.size() == (size_t)s.n, "each number has its edges, or none");
        long out = s.n;
        for (const auto& edges : s.edges) {
          holds(edges.size() != 1, "a bin has two edges");
          for (size_t i = 1; i < edges.size(); ++i) {
            const T width = T(edges[i]) - T(edges[i - 1]);
            holds(width > 0 && std::isfinite(1 / width) && std::isfinite(width) &&
                      std::isfinite(T(edges[i])),
                  "the edges of bins are finite, and ascend");
          }
          out += edges.empty() ? 0 : (long)edges.size() - 1;
          holds(out <= WIDEST, "there are too many bins");
        }
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

  void add_slots(Layer<T>& layer) {
    const auto add = [](std::vector<Slot>& to, long& size, Slot::Form form, int rows, int columns) {
      long length = form == Slot::matrix ? (long)panels<T>(rows) * p * columns
                                         : ((long)rows * columns + p - 1) / p * p;
      to.push_back({form, rows, columns, size, length});
      size += length;
      return (int)to.size() - 1;
    };
    const auto parameter = [&](Slot::Form form, int rows, int columns = 1) {
      layer.slots.push_back(add(slots, size, form, rows, columns));
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
              add(statistic_slots, statistics_size, Slot::vector, layer.out, 1));
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
};

}  // namespace LW_SPACE
