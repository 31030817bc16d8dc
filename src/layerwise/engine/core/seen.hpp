// What is seen of layers and parameters in the steps that are looked at.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "layers.hpp"
#include "memory.hpp"
#include "request.hpp"
#include "stack.hpp"

namespace LW_SPACE {

// Sums over the rows of one register's columns. They are taken of the distance to the first row, so
// that a small deviation far from 0 is not lost in the squares; whole numbers count what is true.
template <class T> struct Columns {
  using V = typename Of<T>::V;
  using I = typename Of<T>::I;
  V first = {}, sum = {}, squares = {};
  I zeros = {}, flat = {}, beyond = {};

  LW_INLINE void outputs(int n, const T* y) {
    first = at(y);
    for (int b = 0; b < n; ++b) {
      const V one = at(y + (long)b * P<T>), d = one - first;
      sum += d;
      squares += d * d;
      zeros -= one == V{};
    }
  }
  template <class F> LW_INLINE void answers(F f, int n, const T* x, const T* y) {
    for (int b = 0; b < n; ++b) {
      const V one = at(x + (long)b * P<T>), slope = f.slope(one, at(y + (long)b * P<T>));
      flat -= (slope < T(0.01)) & (slope > T(-0.01));
      beyond -= (one > T(5)) | (one < T(-5));
    }
  }
};

template <class T> class Watching {
 public:
  explicit Watching(Stack<T>& stack) : stack_(stack) { seen(); }

  // Look at the first step of each epoch and at every so manieth after it; 0 for none.
  void every(long steps) {
    every_ = steps;
    before_.resize(steps ? stack_.size : 0);
    seen();
  }
  bool at_step(long number) const { return every_ && number % every_ == 0; }

  // All of it since it was last asked.
  Seen seen() {
    for (size_t k = 0; k < layers_.size(); ++k)
      for (int c = 0; c < stack_.layers[k].out; ++c)
        layers_[k].dead += layers_[k].outputs > 0 && silent_[k][c];
    silent_.clear();
    for (const Layer<T>& l : stack_.layers) silent_.emplace_back(panels<T>(l.out) * P<T>, true);
    return {std::exchange(layers_, std::vector<LayerSeen>(stack_.layers.size())),
            std::exchange(parameters_, std::vector<ParameterSeen>(stack_.slots.size()))};
  }

  // The layers' outputs for the batch that has just gone through, and gradients before clipping.
  void before_update(int n) {
    for (size_t k = 0; k < stack_.layers.size(); ++k) {
      const Layer<T>& l = stack_.layers[k];
      const T* x = k ? stack_.layers[k - 1].y.data() : stack_.input.data();
      if (l.spec.kind >= LayerKind::relu)
        with_activation<T>(l.spec, [&](auto f) {
          look(k, n, [&](auto& c, long i) { c.answers(f, n, x + i, l.y.data() + i); });
        });
      else
        look(k, n, [](auto&, long) {});
    }
    std::copy(stack_.theta.data(), stack_.theta.data() + stack_.size, before_.data());
    for (size_t i = 0; i < stack_.slots.size(); ++i) {
      const Slot& s = stack_.slots[i];
      parameters_[i].steps += 1;
      parameters_[i].gradient += squared(s, stack_.grad.data() + s.at);
      parameters_[i].weight += squared(s, stack_.theta.data() + s.at);
    }
  }

  void after_update() {
    T *before = before_.data(), *theta = stack_.theta.data();
    for (long i = 0; i < stack_.size; i += L<T>) at(before + i) = at(theta + i) - at(before + i);
    for (size_t i = 0; i < stack_.slots.size(); ++i)
      parameters_[i].update += squared(stack_.slots[i], before + stack_.slots[i].at);
  }

 private:
  Stack<T>& stack_;
  long every_ = 0;
  Buffer<T> before_;  // the parameters before an update
  std::vector<LayerSeen> layers_;
  std::vector<ParameterSeen> parameters_;
  std::vector<std::vector<char>> silent_;  // of each layer the units that were 0 for every row

  template <class F> void look(size_t k, int n, F more) {
    const Layer<T>& l = stack_.layers[k];
    LayerSeen& s = layers_[k];
    s.units = l.out;
    s.outputs += double(n) * l.out;
    for (int from = 0; from < l.out; from += L<T>) {
      const long i = (from / P<T>)*stack_.cap * P<T> + from % P<T>;
      Columns<T> c;
      c.outputs(n, l.y.data() + i);
      more(c, i);
      for (int k2 = 0; k2 < L<T> && from + k2 < l.out; ++k2) {
        const double first = c.first[k2], sum = c.sum[k2];
        s.sum += n * first + sum;
        s.squares += (n * first + 2 * sum) * first + c.squares[k2];
        s.zeros += c.zeros[k2];
        s.saturated += c.flat[k2];
        s.beyond += c.beyond[k2];
        if (c.zeros[k2] != n) silent_[k][from + k2] = false;
      }
    }
  }
};

}  // namespace LW_SPACE
