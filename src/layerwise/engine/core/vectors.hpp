// Vectors of one instruction set, and the elementary functions on them.
//
// Everything the core computes on is stored in panels: columns in groups of P, and of each group
// all rows, 64 bytes a row. So a row of a panel is one cache line and NV vector registers, whatever
// the instruction set, and no loop has a tail: the last panel is filled up with zeros.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#ifndef LW_BYTES
#define LW_BYTES 16  // bytes in a register: 16 (SSE, NEON), 32 (AVX2), 64 (AVX-512)
#endif
#define LW_INLINE inline __attribute__((always_inline))

namespace LW_SPACE {

typedef float Vf __attribute__((vector_size(LW_BYTES), may_alias));
typedef double Vd __attribute__((vector_size(LW_BYTES), may_alias));
typedef int32_t Vi __attribute__((vector_size(LW_BYTES), may_alias));
typedef int64_t Vl __attribute__((vector_size(LW_BYTES), may_alias));

template <class T> struct Of;
template <> struct Of<float> {
  using V = Vf;
  using I = Vi;
};
template <> struct Of<double> {
  using V = Vd;
  using I = Vl;
};

template <class T> constexpr int P = 64 / sizeof(T);         // columns of a panel
template <class T> constexpr int L = LW_BYTES / sizeof(T);   // lanes of a register
constexpr int NV = 64 / LW_BYTES;                            // registers of a panel's row

template <class T> LW_INLINE typename Of<T>::V& at(T* p) {
  return *reinterpret_cast<typename Of<T>::V*>(p);
}
template <class T> LW_INLINE const typename Of<T>::V& at(const T* p) {
  return *reinterpret_cast<const typename Of<T>::V*>(p);
}
template <class T> LW_INLINE typename Of<T>::V all(T x) { return typename Of<T>::V{} + x; }

// Where a is NaN, so is what comes out.
template <class T> LW_INLINE typename Of<T>::V largest(typename Of<T>::V a, typename Of<T>::V b) {
  return b > a ? b : a;
}
template <class T> LW_INLINE typename Of<T>::V smallest(typename Of<T>::V a, typename Of<T>::V b) {
  return b < a ? b : a;
}

// All lanes into one by halves: f(a, b) of the lanes and of those half, a quarter, … further.
template <class T, int BY, class F, int... I>
LW_INLINE T folded(typename Of<T>::V x, F f, std::integer_sequence<int, I...> lanes) {
  const auto both = f(x, __builtin_shufflevector(x, x, (I + BY) % L<T>...));
  if constexpr (BY > 1) return folded<T, BY / 2>(both, f, lanes);
  else return both[0];
}
template <class T, class F> LW_INLINE T folded(typename Of<T>::V x, F f) {
  return folded<T, L<T> / 2>(x, f, std::make_integer_sequence<int, L<T>>());
}
template <class T> LW_INLINE T total(typename Of<T>::V x) {
  return folded<T>(x, [](auto a, auto b) { return a + b; });
}

// The lanes' columns, of which the first is `from`.
template <class T> LW_INLINE typename Of<T>::I columns_of(int from) {
  typename Of<T>::I found;
#pragma GCC unroll 16
  for (int k = 0; k < L<T>; ++k) found[k] = from + k;
  return found;
}

// x = n ln(2) + r with a whole n and |r| <= ln(2)/2, so exp(x) = 2^n (1 + q) with q = exp(r) - 1.
// A Taylor series of degree 7 (float) or 13 (double) gives q to half a unit in the last place; ln(2)
// is taken off in two parts, of which the first is exact in the product (Cody & Waite, 1980).
template <class T> struct Parted {
  typename Of<T>::V q;
  typename Of<T>::I n;
};

LW_INLINE Parted<float> parted(Vf x) {
  const Vf magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vf shifted = x * 1.44269504f + magic, n = shifted - magic;
  const Vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Vf p = all(1.0f / 5040);
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  return {p * r, (Vi)shifted - 0x4B400000};
}

LW_INLINE Parted<double> parted(Vd x) {
  const Vd magic = all(6755399441055744.0);  // 1.5 * 2^52
  const Vd shifted = x * 1.4426950408889634 + magic, n = shifted - magic;
  const Vd r = x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6;
  double factorial = 6227020800.0;  // 13!
  Vd p = all(1.0 / factorial);
#pragma GCC unroll 12
  for (int k = 13; k > 1; --k) {
    factorial /= k;
    p = p * r + 1.0 / factorial;
  }
  return {p * r, (Vl)shifted - 0x4338000000000000LL};
}

LW_INLINE Vf power_of_2(Vi n) { return (Vf)((n + 127) << 23); }
LW_INLINE Vd power_of_2(Vl n) { return (Vd)((n + 1023) << 52); }

template <class T, class V> LW_INLINE V within(V x, T low, T high) {  // NaN stays NaN
  return x < all(low) ? all(low) : (x > all(high) ? all(high) : x);
}

// exp(x), infinite where it is too large for the type and 0 below the smallest normal number. The
// power is taken in two steps, since the largest one is no number of the type by itself.
template <class T> LW_INLINE typename Of<T>::V exp_(typename Of<T>::V x) {
  constexpr bool single = sizeof(T) == 4;
  const auto [q, n] = parted(within<T>(x, single ? T(-87.3) : T(-708.3), single ? T(89) : T(710)));
  const auto value = (q + T(1)) * power_of_2(n - 1) * T(2);
  return x == x ? value : x;
}

// exp(x) - 1 for x <= 80, to the last digits also near 0
template <class T> LW_INLINE typename Of<T>::V expm1_(typename Of<T>::V x) {
  const auto [q, n] = parted(within<T>(x, T(-80), T(80)));
  const auto power = power_of_2(n), value = q * power + (power - T(1));
  return x == x ? value : x;
}

template <class T> LW_INLINE typename Of<T>::V sigmoid_(typename Of<T>::V x) {
  return T(1) / (T(1) + exp_<T>(-x));
}
// e / (e + 2) with e = exp(2x) - 1: to the last digits also near 0
template <class T> LW_INLINE typename Of<T>::V tanh_(typename Of<T>::V x) {
  const auto e = expm1_<T>(x + x);
  return e / (e + T(2));
}

template <class T, class F> LW_INLINE typename Of<T>::V each(typename Of<T>::V x, F f) {
  typename Of<T>::V y;
  for (int i = 0; i < L<T>; ++i) y[i] = f(x[i]);
  return y;
}
template <class T> LW_INLINE typename Of<T>::V sqrt_(typename Of<T>::V x) {
  typename Of<T>::V y;
#pragma GCC unroll 16
  for (int i = 0; i < L<T>; ++i) y[i] = std::sqrt(x[i]);
  return y;
}

}  // namespace LW_SPACE
