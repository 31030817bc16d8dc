// The loss of a batch and its gradient with respect to the network's outputs.
//
// A batch's loss is the mean over its rows of weight times the row's loss; a row's loss is the mean
// over its outputs. Row weights have mean 1 over the whole table, so a batch divides by its number
// of rows, not by the sum of its weights. Only where torch's own mean divides by other weights, those
// of the classes or the zeros of an index that is ignored, a batch divides by the sum of both.
#pragma once

#include <algorithm>
#include <utility>

#include "request.hpp"
#include "rows.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

template <class T> struct LossOf {
  LossKind kind;
  T a;              // beta of smooth_l1, delta of huber, label smoothing of cross_entropy
  const T* weight;  // of each class, or pos_weight of each output; may be null
  long ignored;
};

struct Summed {
  double sum;      // of weight times loss over the rows
  double divisor;  // of the batch's mean
  double weight;   // that the rows stand for: the divisor of the mean over several batches
};

template <class T> struct Told {
  typename Of<T>::V loss, slope;  // of one register of outputs
};

// The losses of a distance d between output and target.
template <class T>
LW_INLINE Told<T> distance_loss(LossKind kind, T a, typename Of<T>::V d) {
  using V = typename Of<T>::V;
  const V zero = {}, one = all(T(1)), size = d < zero ? -d : d;
  const V sign = (d > zero ? one : (d < zero ? -one : zero)) + (d - d);  // NaN of NaN and infinities
  switch (kind) {
    case LossKind::mse:
      return {d * d, T(2) * d};
    case LossKind::l1:
      return {size, sign};
    case LossKind::smooth_l1:
      return {size < a ? T(0.5) * d * d / a : size - T(0.5) * a, size < a ? d / a : sign};
    default:  // huber
      return {size <= a ? T(0.5) * d * d : a * (size - T(0.5) * a), size <= a ? d : a * sign};
  }
}

// Loss and slope of a probability or a logit x, one by one: their logarithms are the C library's.
template <class T> LW_INLINE std::pair<T, T> binary_loss(const LossOf<T>& s, T x, T y, int o) {
  if (s.kind == LossKind::bce) {  // logarithms end at -100, as in torch
    const T yes = std::log(x), no = std::log1p(-x);
    const T loss = -(y * (yes < -100 ? T(-100) : yes) + (1 - y) * (no < -100 ? T(-100) : no));
    const T spread = x * (1 - x);
    return {loss, (x - y) / (spread > T(1e-12) ? spread : T(1e-12))};
  }
  const T p = s.weight ? s.weight[o] : T(1);
  const T e = std::exp(-std::abs(x)), soft = std::log1p(e);  // no overflow on either side
  const T sigmoid = x >= 0 ? 1 / (1 + e) : e / (1 + e);
  const T minus = soft + (x < 0 ? -x : T(0));  // -log sigmoid(x)
  return {p * y * minus + (1 - y) * (minus + x), (1 - y) * sigmoid - p * y * (1 - sigmoid)};
}

// Outputs z of O columns in panels of `cap` rows; dz, if not null, gets the gradient of the mean.
template <class T>
Summed elementwise(const LossOf<T>& s, int O, long cap, const T* z, const Batch<T>& batch, T* dz) {
  using V = typename Of<T>::V;
  const bool binary = s.kind == LossKind::bce || s.kind == LossKind::bce_logits;
  const int n = batch.n;
  const T by = T(1.0 / n);
  double sum = 0, weights = n;
  if (batch.w) {
    weights = 0;
    for (int b = 0; b < n; ++b) weights += batch.w[b];
  }
  for (int o = 0; o < O; o += L<T>) {
    const int lanes = std::min(L<T>, O - o);
    const T* x = z + (o / P<T>)*cap * P<T> + o % P<T>;
    const T* y = batch.y + (long)(o / P<T>)*n * P<T> + o % P<T>;
    T* back = dz ? dz + (o / P<T>)*cap * P<T> + o % P<T> : nullptr;
    V part = {};
    for (int b = 0; b < n; ++b) {
      const long i = (long)b * P<T>;
      const T weight = (batch.w ? batch.w[b] : T(1)) / O;
      Told<T> one = {};
      if (binary)
        for (int k = 0; k < lanes; ++k) {
          const auto [loss, slope] = binary_loss(s, x[i + k], y[i + k], o + k);
          one.loss[k] = loss;
          one.slope[k] = slope;
        }
      else
        one = distance_loss<T>(s.kind, s.a, at(x + i) - at(y + i));
      part += weight * one.loss;
      if (back) at(back + i) = weight * by * one.slope;
      if (b % 64 == 63 || b == n - 1) {
        for (int k = 0; k < lanes; ++k) sum += part[k];
        part = V{};
      }
    }
  }
  return {sum, double(n), weights};
}

// The batch's targets are classes, or probabilities of them.
template <class T>
Summed by_class(const LossOf<T>& s, int O, long cap, const T* z, const Batch<T>& batch, T* dz) {
  using V = typename Of<T>::V;
  using I = typename Of<T>::I;
  const bool nll = s.kind == LossKind::nll;
  const T smooth = nll ? T(0) : s.a, low = -std::numeric_limits<T>::infinity();
  const int n = batch.n;
  const int64_t* classes = batch.classes;
  double sum = 0, counted = 0;
  bool alike = !s.weight;  // whether torch's mean divides by the number of rows
  for (int b = 0; b < n; ++b) {
    const bool ignored = classes && classes[b] == s.ignored;
    if (ignored) alike = false;
    else
      counted += double(batch.w ? batch.w[b] : T(1)) *
                 (classes && s.weight ? s.weight[classes[b]] : T(1));
  }
  const double divisor = alike ? double(n) : counted;
  const auto place = [cap](int o) { return (o / P<T>)*cap * P<T> + o % P<T>; };
  for (int b = 0; b < n; ++b) {
    const T* row = z + (long)b * P<T>;
    T* back = dz ? dz + (long)b * P<T> : nullptr;
    if (classes && classes[b] == s.ignored) {
      for (int o = 0; back && o < O; o += L<T>) at(back + place(o)) = V{};
      continue;
    }
    // -log softmax is whole - (z - top). Of nll the outputs are logarithms already.
    T top = 0, whole = 0, share = 0;
    if (!nll) {
      V most = all(low), parts = {};
      for (int o = 0; o < O; o += L<T>)
        most = largest<T>(most, columns_of<T>(o) < O ? at(row + place(o)) : all(low));
      top = folded<T>(most, [](V x, V y) { return largest<T>(x, y); });
      for (int o = 0; o < O; o += L<T>) {
        const V e = columns_of<T>(o) < O ? exp_<T>(at(row + place(o)) - top) : V{};
        if (back) at(back + place(o)) = e;
        parts += e;
      }
      const T all_of_it = total<T>(parts);
      whole = std::log(all_of_it);
      share = 1 / all_of_it;
    }
    // How much each class is wanted, times its weight; their sum is what softmax is pulled by.
    const auto wanted = [&](int o) -> V {
      const I column = columns_of<T>(o);
      V plain;
      if (classes) plain = column == I{} + (int)classes[b] ? all(T(1)) : V{};
      else plain = at(batch.y + (long)(o / P<T>)*n * P<T> + (long)b * P<T> + o % P<T>);
      V t = (1 - smooth) * plain + smooth / O;
      if (s.weight)
        for (int k = 0; k < L<T>; ++k) t[k] *= o + k < O ? s.weight[o + k] : T(0);
      return column < O ? t : V{};
    };
    V losses = {}, pulls = {};
    for (int o = 0; o < O; o += L<T>) {
      const V t = wanted(o), loss = t * (whole - (at(row + place(o)) - top));
      pulls += t;
      losses += t != V{} ? loss : V{};
    }
    const T weight = batch.w ? batch.w[b] : T(1), by = T(weight / divisor);
    const T pull = total<T>(pulls) * share;
    for (int o = 0; back && o < O; o += L<T>) {
      const V soft = nll ? V{} : at(back + place(o)) * pull;
      at(back + place(o)) = by * (soft - wanted(o));
    }
    sum += double(weight) * total<T>(losses);
  }
  return {sum, divisor, counted};
}

template <class T>
Summed batch_loss(const LossOf<T>& s, int O, long cap, const T* z, const Batch<T>& batch, T* dz) {
  if (s.kind == LossKind::cross_entropy || s.kind == LossKind::nll)
    return by_class(s, O, cap, z, batch, dz);
  return elementwise(s, O, cap, z, batch, dz);
}

}  // namespace LW_SPACE
