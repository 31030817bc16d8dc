// The loss of a batch and its gradient with respect to the network's outputs.
//
// A batch's loss is the mean over its rows of weight times the row's loss; a row's loss is the mean
// over its outputs. Row weights have mean 1 over the whole table, so a batch divides by its number
// of rows, not by the sum of its weights. Only where torch's own mean divides by other weights, those
// of the classes or the zeros of an index that is ignored, a batch divides by the sum of both.
#pragma once

#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

template <class T> struct LossOf {
  LossKind kind;
  T a;              // beta of smooth_l1, delta of huber, label smoothing of cross_entropy
  const T* weight;  // of each class, or pos_weight of each output; may be null
  long ignored;
};

template <class T> struct Told {
  T loss, slope;  // of one output
};

template <class T> LW_INLINE Told<T> element(const LossOf<T>& s, T x, T y, int o) {
  const T d = x - y, size = std::abs(d);
  switch (s.kind) {
    case LossKind::mse:
      return {d * d, 2 * d};
    case LossKind::l1:
      return {size, T((d > 0) - (d < 0)) + (d - d)};
    case LossKind::smooth_l1:
      if (size < s.a) return {T(0.5) * d * d / s.a, d / s.a};
      return {size - T(0.5) * s.a, T((d > 0) - (d < 0)) + (d - d)};
    case LossKind::huber:
      if (size <= s.a) return {T(0.5) * d * d, d};
      return {s.a * (size - T(0.5) * s.a), s.a * T((d > 0) - (d < 0)) + (d - d)};
    case LossKind::bce: {  // logarithms end at -100, as in torch
      const T yes = std::log(x), no = std::log1p(-x);
      const T loss = -(y * (yes < -100 ? T(-100) : yes) + (1 - y) * (no < -100 ? T(-100) : no));
      const T spread = x * (1 - x);
      return {loss, d / (spread > T(1e-12) ? spread : T(1e-12))};
    }
    default: {  // bce_logits: log(1 + exp(-|x|)) without overflow on either side
      const T p = s.weight ? s.weight[o] : T(1);
      const T e = std::exp(-std::abs(x)), soft = std::log1p(e);
      const T sigmoid = x >= 0 ? 1 / (1 + e) : e / (1 + e);
      const T minus = soft + (x < 0 ? -x : T(0));  // -log sigmoid(x)
      return {p * y * minus + (1 - y) * (minus + x), (1 - y) * sigmoid - p * y * (1 - sigmoid)};
    }
  }
}

struct Summed {
  double sum;      // of weight times loss over the rows
  double divisor;  // of the batch's mean
  double weight;   // that the rows stand for: the divisor of the mean over several batches
};

// B rows z of O outputs in panels, y (B, O) row by row, w (B,) or null. dz, if not null, gets the
// gradient of the sum, still to be divided.
template <class T>
Summed elementwise(const LossOf<T>& s, int n, int O, long cap, const T* z, const T* y, const T* w,
                   T* dz) {
  double total = 0, weights = 0;
  for (int b = 0; b < n; ++b) {
    T row = 0;
    const T weight = (w ? w[b] : T(1)) / O;
    weights += w ? w[b] : T(1);
    for (int o = 0; o < O; ++o) {
      const long i = (o / P<T>) * cap * P<T> + (long)b * P<T> + o % P<T>;
      const Told<T> one = element(s, z[i], y[(long)b * O + o], o);
      row += one.loss;
      if (dz) dz[i] = weight * one.slope;
    }
    total += double(weight) * row;
  }
  return {total, double(n), weights};
}

// y are class indices (B,), or null and `shares` their probabilities (B, O).
template <class T>
Summed by_class(const LossOf<T>& s, int n, int O, long cap, const T* z, const int64_t* y,
                const T* shares, const T* w, T* dz) {
  double total = 0, counted = 0;
  bool alike = !s.weight;  // whether torch's mean divides by the number of rows
  const bool nll = s.kind == LossKind::nll;
  const T smooth = nll ? T(0) : s.a;
  const auto place = [cap](int o) { return (o / P<T>) * cap * P<T> + o % P<T>; };
  for (int b = 0; b < n; ++b) {
    const T* row = z + (long)b * P<T>;
    T* back = dz ? dz + (long)b * P<T> : nullptr;
    const T weight = w ? w[b] : T(1);
    if (y && y[b] == s.ignored) {
      alike = false;
      if (back)
        for (int o = 0; o < O; ++o) back[place(o)] = 0;
      continue;
    }
    counted += double(weight) * (y && s.weight ? s.weight[y[b]] : T(1));
    // -log softmax is whole - (z - top). Of nll the outputs are logarithms already.
    T top = 0, whole = 0;
    if (!nll) {
      top = row[0];
      for (int o = 1; o < O; ++o) top = row[place(o)] > top ? row[place(o)] : top;
      for (int o = 0; o < O; ++o) whole += std::exp(row[place(o)] - top);
      whole = std::log(whole);
    }
    // How much each class is wanted, times its weight; their sum is what softmax is pulled by.
    const auto wanted = [&](int o) {
      const T plain = y ? T(o == y[b]) : shares[(long)b * O + o];
      return ((1 - smooth) * plain + smooth / O) * (s.weight ? s.weight[o] : T(1));
    };
    T loss = 0, pull = 0;
    for (int o = 0; o < O; ++o) {
      const T t = wanted(o);
      pull += t;
      if (t != 0) loss += t * (whole - (row[place(o)] - top));
    }
    if (back)
      for (int o = 0; o < O; ++o) {
        const T soft = nll ? T(0) : std::exp(row[place(o)] - top - whole) * pull;
        back[place(o)] = weight * (soft - wanted(o));
      }
    total += double(weight) * loss;
  }
  return {total, alike ? double(n) : counted, counted};
}

}  // namespace LW_SPACE
