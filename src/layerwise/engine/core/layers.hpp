// What each layer does to a batch, forward and backward side by side.
//
// n rows of the batch, `cap` rows between two panels. x is a layer's input and y its output, both in
// panels; dx and dy are the loss's gradients with respect to them.
#pragma once

#include <stdexcept>

#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

template <class T> constexpr int panels(int columns) { return (columns + P<T> - 1) / P<T>; }

// ---------------------------------------------------------------- activations
//
// y(x) is the function and slope(x, y) its derivative, as torch has it also where it jumps.

#define LW_ACTIVATION(NAME, VALUE, SLOPE)                                                       \
  template <class T> struct NAME {                                                              \
    using V = typename Of<T>::V;                                                                \
    T a, b;                                                                                     \
    LW_INLINE V value(V x) const { return VALUE; }                                              \
    LW_INLINE V slope([[maybe_unused]] V x, [[maybe_unused]] V y) const { return SLOPE; }       \
  }

#define LW_ZERO (V{})
#define LW_ONE (all(T(1)))
LW_ACTIVATION(ReLU, x <= LW_ZERO ? LW_ZERO : x, y > LW_ZERO ? LW_ONE : LW_ZERO);
LW_ACTIVATION(LeakyReLU, x > LW_ZERO ? x : x * a, x > LW_ZERO ? LW_ONE : all(a));
LW_ACTIVATION(ELU, x > LW_ZERO ? x : a * expm1_<T>(smallest<T>(x, LW_ZERO)),
              x > LW_ZERO ? LW_ONE : y + a);
LW_ACTIVATION(SELU, x > LW_ZERO ? x * b : (a * b) * expm1_<T>(smallest<T>(x, LW_ZERO)),
              x > LW_ZERO ? all(b) : y + a * b);
LW_ACTIVATION(SiLU, x * sigmoid_<T>(x), sigmoid_<T>(x) * (T(1) + x * (T(1) - sigmoid_<T>(x))));
LW_ACTIVATION(Tanh, tanh_<T>(x), T(1) - y * y);
LW_ACTIVATION(Sigmoid, sigmoid_<T>(x), y * (T(1) - y));
LW_ACTIVATION(Hardtanh, x < a ? all(a) : (x > b ? all(b) : x),
              (x > a) & (x < b) ? LW_ONE : LW_ZERO);
#undef LW_ZERO
#undef LW_ONE

template <class T> struct GELU {  // x times the normal distribution's share below x
  using V = typename Of<T>::V;
  T a, b;
  LW_INLINE V below(V x) const {
    return each<T>(x, [](T t) { return T(0.5) * (T(1) + std::erf(t * T(0.70710678118654752440))); });
  }
  LW_INLINE V value(V x) const { return x * below(x); }
  LW_INLINE V slope(V x, V) const {
    return below(x) + x * exp_<T>(x * x * T(-0.5)) * T(0.39894228040143267794);
  }
};

// The same by (1 + tanh(u)) / 2, which is sigmoid(2u), with 2u = k x (1 + c x^2).
template <class T> struct GELUTanh {
  using V = typename Of<T>::V;
  T a, b;
  static constexpr T k = T(2 * 0.79788456080286535588), c = T(0.044715);
  LW_INLINE V share(V x) const { return sigmoid_<T>(k * x * (T(1) + c * x * x)); }
  LW_INLINE V value(V x) const { return x * share(x); }
  LW_INLINE V slope(V x, V) const {
    const V s = share(x);
    return s + x * s * (T(1) - s) * k * (T(1) + 3 * c * x * x);
  }
};

template <class T> struct Mish {  // x tanh(softplus(x)), where tanh(log(1 + e)) = n / (n + 2)
  using V = typename Of<T>::V;
  T a, b;
  LW_INLINE V bent(V x) const {
    const V e = exp_<T>(smallest<T>(x, all(T(40)))), n = e * (e + T(2));
    return n / (n + T(2));
  }
  LW_INLINE V value(V x) const { return x * bent(x); }
  LW_INLINE V slope(V x, V) const {
    const V t = bent(x);
    return t + x * (T(1) - t * t) * sigmoid_<T>(x);
  }
};

template <class T> struct Softplus {  // log(1 + exp(a x)) / a, and x itself where a x > b
  using V = typename Of<T>::V;
  T a, b;
  LW_INLINE V value(V x) const {
    const V bent = each<T>(exp_<T>(smallest<T>(x * a, all(b))), [](T e) { return std::log1p(e); }) / a;
    return x * a > all(b) ? x : bent;
  }
  LW_INLINE V slope(V x, V) const { return x * a > all(b) ? all(T(1)) : sigmoid_<T>(x * a); }
};

// What a plan's activation does to rows of one panel, chosen once for all of them.
template <class T> struct Activation {
  void (*forward)(const LayerSpec& s, int n, const T* x, T* y);
  // dy becomes the gradient of the inputs in place. Its sum over the rows goes to `sums`, a panel's
  // row, if that is not null: the first rows' sum is put there, that of later ones added.
  void (*backward)(const LayerSpec& s, int n, const T* x, const T* y, T* dy, bool first, T* sums);
};

template <class T, class F> Activation<T> activation_by() {
  using V = typename Of<T>::V;
  return {[](const LayerSpec& s, int n, const T* x, T* y) {
            const F f{T(s.a), T(s.b)};
            for (long i = 0; i < (long)n * P<T>; i += L<T>) at(y + i) = f.value(at(x + i));
          },
          [](const LayerSpec& s, int n, const T* x, const T* y, T* dy, bool first, T* sums) {
            const F f{T(s.a), T(s.b)};
            V sum[NV] = {};
            for (long b = 0; b < (long)n * P<T>; b += P<T>)
#pragma GCC unroll 4
              for (int k = 0; k < NV; ++k) {
                const long i = b + k * L<T>;
                const V d = at(dy + i) * f.slope(at(x + i), at(y + i));
                at(dy + i) = d;
                sum[k] += d;
              }
            if (sums)
              for (int k = 0; k < NV; ++k)
                at(sums + k * L<T>) = first ? sum[k] : at(sums + k * L<T>) + sum[k];
          }};
}

// f(the activation of this layer)
template <class T, class F> void with_activation(const LayerSpec& s, F f) {
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

template <class T> Activation<T> activation(const LayerSpec& s) {
  Activation<T> found = {};
  if (s.kind >= LayerKind::relu)
    with_activation<T>(s, [&](auto f) { found = activation_by<T, decltype(f)>(); });
  return found;
}

// ---------------------------------------------------------------- normalisation

// Batch normalisation: over the rows, each column by itself. `kept` holds each column's mean and
// 1 / deviation for the way back. Ioffe & Szegedy (2015).
template <class T> struct Norm {
  T eps, momentum;  // momentum below 0: a running mean over all batches
};

template <class T>
void batch_norm(Norm<T> s, bool training, int n, int columns, long cap, const T* x, T* y,
                const T* gain, const T* shift, T* mean, T* var, T factor, T* kept) {
  using V = typename Of<T>::V;
  const int width = panels<T>(columns) * P<T>;
  for (int c = 0; c < width; c += L<T>) {
    const T* from = x + (c / P<T>)*cap * P<T> + c % P<T>;
    T* to = y + (c / P<T>)*cap * P<T> + c % P<T>;
    V m, v;
    if (training) {
      V sum = {}, squares = {};
      for (int b = 0; b < n; ++b) sum += at(from + (long)b * P<T>);
      m = sum / T(n);
      for (int b = 0; b < n; ++b) {
        const V d = at(from + (long)b * P<T>) - m;
        squares += d * d;
      }
      v = squares / T(n);
      at(mean + c) += factor * (m - at(mean + c));
      at(var + c) += factor * (squares / T(n > 1 ? n - 1 : 1) - at(var + c));
    } else {
      m = at(mean + c);
      v = at(var + c);
    }
    const V scale = T(1) / sqrt_<T>(v + s.eps);
    at(kept + c) = m;
    at(kept + width + c) = scale;
    const V g = gain ? at(gain + c) * scale : scale, h = shift ? at(shift + c) : V{};
    for (int b = 0; b < n; ++b)
      at(to + (long)b * P<T>) = (at(from + (long)b * P<T>) - m) * g + h;
  }
}

template <class T>
void batch_norm_back(int n, int columns, long cap, const T* x, const T* dy, T* dx, const T* gain,
                     T* dgain, T* dshift, const T* kept) {
  using V = typename Of<T>::V;
  const int width = panels<T>(columns) * P<T>;
  for (int c = 0; c < width; c += L<T>) {
    const long start = (c / P<T>)*cap * P<T> + c % P<T>;
    const V m = at(kept + c), scale = at(kept + width + c);
    V sum = {}, along = {};
    for (int b = 0; b < n; ++b) {
      const long i = start + (long)b * P<T>;
      sum += at(dy + i);
      along += at(dy + i) * (at(x + i) - m) * scale;
    }
    if (dgain) at(dgain + c) = along;
    if (dshift) at(dshift + c) = sum;
    const V g = gain ? at(gain + c) * scale : scale;
    for (int b = 0; b < n; ++b) {
      const long i = start + (long)b * P<T>;
      const V hat = (at(x + i) - m) * scale;
      at(dx + i) = g * (at(dy + i) - sum / T(n) - hat * along / T(n));
    }
  }
}

// Layer normalisation: over the columns, each row by itself. `kept` holds each row's mean and
// 1 / deviation. Ba et al. (2016).
template <class T> LW_INLINE T row_sum(const T* row, long step, int columns) {
  T sum = 0;
  for (int c = 0; c < columns; ++c) sum += row[(c / P<T>)*step + c % P<T>];
  return sum;
}

template <class T>
void layer_norm(T eps, int n, int columns, long cap, const T* x, T* y, const T* gain, const T* shift,
                T* kept) {
  const long step = cap * P<T>;
  for (int b = 0; b < n; ++b) {
    const T* row = x + (long)b * P<T>;
    T* to = y + (long)b * P<T>;
    const T mean = row_sum<T>(row, step, columns) / columns;
    T squares = 0;
    for (int c = 0; c < columns; ++c) {
      const T d = row[(c / P<T>)*step + c % P<T>] - mean;
      squares += d * d;
    }
    const T scale = 1 / std::sqrt(squares / columns + eps);
    kept[2 * b] = mean;
    kept[2 * b + 1] = scale;
    for (int c = 0; c < columns; ++c) {
      const T hat = (row[(c / P<T>)*step + c % P<T>] - mean) * scale;
      to[(c / P<T>)*step + c % P<T>] = (gain ? hat * gain[c] : hat) + (shift ? shift[c] : 0);
    }
  }
}

template <class T>
void layer_norm_back(int n, int columns, long cap, const T* x, const T* dy, T* dx, const T* gain,
                     T* dgain, T* dshift, const T* kept) {
  const long step = cap * P<T>;
  for (int b = 0; b < n; ++b) {
    const long row = (long)b * P<T>;
    const T mean = kept[2 * b], scale = kept[2 * b + 1];
    T sum = 0, along = 0;
    for (int c = 0; c < columns; ++c) {
      const long i = row + (c / P<T>)*step + c % P<T>;
      const T hat = (x[i] - mean) * scale, g = dy[i] * (gain ? gain[c] : T(1));
      sum += g;
      along += g * hat;
      if (dgain) dgain[c] += dy[i] * hat;
      if (dshift) dshift[c] += dy[i];
    }
    for (int c = 0; c < columns; ++c) {
      const long i = row + (c / P<T>)*step + c % P<T>;
      const T hat = (x[i] - mean) * scale, g = dy[i] * (gain ? gain[c] : T(1));
      dx[i] = scale * (g - sum / columns - hat * along / columns);
    }
  }
}

// ---------------------------------------------------------------- softmax as a layer

// y = softmax(x) over the columns, or its logarithm.
template <class T>
void softmax(bool logarithm, int n, int columns, long cap, const T* x, T* y) {
  const long step = cap * P<T>;
  for (int b = 0; b < n; ++b) {
    const T* row = x + (long)b * P<T>;
    T* to = y + (long)b * P<T>;
    T top = row[0], sum = 0;
    for (int c = 1; c < columns; ++c) {
      const T one = row[(c / P<T>)*step + c % P<T>];
      top = one > top ? one : top;
    }
    for (int c = 0; c < columns; ++c) sum += std::exp(row[(c / P<T>)*step + c % P<T>] - top);
    const T whole = std::log(sum);
    for (int c = 0; c < columns; ++c) {
      const T l = row[(c / P<T>)*step + c % P<T>] - top - whole;
      to[(c / P<T>)*step + c % P<T>] = logarithm ? l : std::exp(l);
    }
  }
}

template <class T>
void softmax_back(bool logarithm, int n, int columns, long cap, const T* y, const T* dy, T* dx) {
  const long step = cap * P<T>;
  for (int b = 0; b < n; ++b) {
    const long row = (long)b * P<T>;
    T sum = 0;
    for (int c = 0; c < columns; ++c) {
      const long i = row + (c / P<T>)*step + c % P<T>;
      sum += logarithm ? dy[i] : dy[i] * y[i];
    }
    for (int c = 0; c < columns; ++c) {
      const long i = row + (c / P<T>)*step + c % P<T>;
      dx[i] = logarithm ? dy[i] - std::exp(y[i]) * sum : y[i] * (dy[i] - sum);
    }
  }
}

}  // namespace LW_SPACE
