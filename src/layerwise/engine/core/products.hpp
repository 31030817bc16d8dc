// The three products of a linear layer, all by one register tile.
//
// B rows of the batch, I inputs, O outputs. In panels: X[I/P][B][P], Z[O/P][B][P], and the weights
// as the forward pass reads them, W[O/P][I][P].
//
//   forward   Z = X W^T + b    tile: rows of the batch x columns of O, summed over I
//   inputs    dX = dZ W        tile: rows of the batch x columns of I, summed over O
//   weights   dW = dZ^T X      tile: rows of I x columns of O, summed over the batch
//
// A tile holds M rows of NP panels in registers, and in each step of the sum loads NP rows of
// panels and broadcasts M numbers: M * NP * NV multiply-adds for NP * NV + M loads.
#pragma once

#include <algorithm>
#include <utility>

#include "vectors.hpp"

namespace LW_SPACE {

// How many rows of how many panels fit into the registers (32 with AVX-512, 16 before).
#if LW_BYTES == 64
constexpr int TILE_ROWS = 12, TILE_PANELS = 2, WEIGHT_ROWS = 8, WEIGHT_PANELS = 2;
#elif LW_BYTES == 32
constexpr int TILE_ROWS = 6, TILE_PANELS = 1, WEIGHT_ROWS = 4, WEIGHT_PANELS = 1;
#else
constexpr int TILE_ROWS = 2, TILE_PANELS = 1, WEIGHT_ROWS = 2, WEIGHT_PANELS = 1;
#endif

// c[m, panel q] = start[q] + sum over k of a(m, k) b[q][k]; start may be null for zeros, and `on`
// goes on from what is in c.
//   IN_ROWS: a(m, k) = a[(k / P) * a_panel + m * P + k % P]   (m are rows of the batch)
//   else:    a(m, k) = a[k * P + m]                           (k are; m within one panel)
template <class T, bool IN_ROWS, int M, int NP>
LW_INLINE void tile(bool on, const T* __restrict a, long a_panel, const T* __restrict b, long b_panel,
                    const T* start, T* __restrict c, long c_panel, int K) {
  using V = typename Of<T>::V;
  constexpr int N = NP * NV, p = P<T>, l = L<T>;
  V sum[M][N];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j)
      sum[m][j] = on      ? at(c + (j / NV) * c_panel + m * p + (j % NV) * l)
                  : start ? at(start + (j / NV) * p + (j % NV) * l)
                          : V{};
  for (int from = 0; from < K; from += p) {
    const int to = K - from < p ? K - from : p;
    const T* ak = IN_ROWS ? a + (from / p) * a_panel : a + (long)from * p;
    const T* bk = b + (long)from * p;
    for (int k = 0; k < to; ++k) {
      V row[N];
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j) row[j] = at(bk + (j / NV) * b_panel + k * p + (j % NV) * l);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const T one = IN_ROWS ? ak[m * p + k] : ak[k * p + m];
#pragma GCC unroll 16
        for (int j = 0; j < N; ++j) sum[m][j] += one * row[j];
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j)
      at(c + (j / NV) * c_panel + m * p + (j % NV) * l) = sum[m][j];
}

// The last rows, fewer than M: the tile of just so many.
template <class T, bool IN_ROWS, int M, int NP>
LW_INLINE void tile_of(int rows, bool on, const T* a, long a_panel, const T* b, long b_panel, const T* start,
                       T* c, long c_panel, int K) {
  if (rows == M)
    tile<T, IN_ROWS, M, NP>(on, a, a_panel, b, b_panel, start, c, c_panel, K);
  else if constexpr (M > 1)
    tile_of<T, IN_ROWS, M - 1, NP>(rows, on, a, a_panel, b, b_panel, start, c, c_panel, K);
}

// c[n rows][NP panels] = start + a b, for a in panels with K columns and b of K rows; or what is in c
// already plus a b.
template <class T, int NP>
void rows_by(bool on, int n, int K, const T* a, long a_panel, const T* b, long b_panel,
             const T* start, T* c, long c_panel) {
  for (int m = 0; m < n; m += TILE_ROWS) {
    const int rows = n - m < TILE_ROWS ? n - m : TILE_ROWS;
    tile_of<T, true, TILE_ROWS, NP>(rows, on, a + (long)m * P<T>, a_panel, b, b_panel, start,
                                    c + (long)m * P<T>, c_panel, K);
  }
}

// A long sum is taken in pieces of so many terms: what the tiles read of them then stays in the
// first-level cache. Rows come in blocks of so many, for what is done to them afterwards.
constexpr int DEEP = 128, BLOCK = 16 * TILE_ROWS;

// Columns that a product leaves out; never its first.
struct Gap {
  int from = 0, to = 0;
};

// c = start + a b, panel by panel; done(q, from, rows) is called when rows of panel q are ready, and
// finds them in the cache.
template <class T, class F>
LW_INLINE void times(int n, int K, Gap gap, int panels, const T* a, long a_panel, const T* b,
                     long b_panel, const T* start, T* c, long c_panel, F done) {
  constexpr int p = P<T>;
  const auto some = [&]<int NP>(int q, int from, int rows) {
    // after the gap k may be within a panel, and a tile begins where one does
    for (int k = 0, to; k < K; k = to == gap.from ? gap.to : to) {
      to = std::min(k % p ? k - k % p + p : k + DEEP, k < gap.from ? gap.from : K);
      rows_by<T, NP>(k > 0, rows, to - k, a + (k / p) * a_panel + (long)from * p + k % p, a_panel,
                     b + q * b_panel + (long)k * p, b_panel, start ? start + q * p : nullptr,
                     c + q * c_panel + (long)from * p, c_panel);
    }
    for (int i = q; i < q + NP; ++i) done(i, from, rows);
  };
  for (int from = 0; from < n; from += BLOCK) {
    const int rows = n - from < BLOCK ? n - from : BLOCK;
    int q = 0;
    for (; q + TILE_PANELS <= panels; q += TILE_PANELS)
      some.template operator()<TILE_PANELS>(q, from, rows);
    if constexpr (TILE_PANELS > 1)
      for (; q < panels; ++q) some.template operator()<1>(q, from, rows);
  }
}

// dw[panels of O][I][P] = sum over n rows of x(row, i) dz[row], or what is there already plus that
template <class T, int NP>
void weights_by(bool on, int n, int I, Gap gap, const T* x, long x_panel, const T* dz, long dz_panel,
                T* dw, long dw_panel) {
  for (int i = 0; i < I;) {
    const int in_panel = P<T> - i % P<T>, left = (i < gap.from ? gap.from : I) - i;
    int rows = left < in_panel ? left : in_panel;
    rows = rows < WEIGHT_ROWS ? rows : WEIGHT_ROWS;
    tile_of<T, false, WEIGHT_ROWS, NP>(rows, on, x + (i / P<T>)*x_panel + i % P<T>, 0, dz, dz_panel,
                                       nullptr, dw + (long)i * P<T>, dw_panel, n);
    i += rows;
    if (i == gap.from) i = gap.to;
  }
}

template <class T>
void weight_gradient(int n, int I, Gap gap, int panels, const T* x, long x_panel, const T* dz, long dz_panel,
                     T* dw, long dw_panel) {
  for (int b = 0; b < n; b += DEEP) {
    const int deep = n - b < DEEP ? n - b : DEEP;
    const T *xb = x + (long)b * P<T>, *dzb = dz + (long)b * P<T>;
    int q = 0;
    for (; q + WEIGHT_PANELS <= panels; q += WEIGHT_PANELS)
      weights_by<T, WEIGHT_PANELS>(b > 0, deep, I, gap, xb, x_panel, dzb + q * dz_panel, dz_panel,
                                   dw + q * dw_panel, dw_panel);
    if constexpr (WEIGHT_PANELS > 1)
      for (; q < panels; ++q)
        weights_by<T, 1>(b > 0, deep, I, gap, xb, x_panel, dzb + q * dz_panel, dz_panel,
                         dw + q * dw_panel, dw_panel);
  }
}

// Two registers' lanes in turn: of a b c d and A B C D the first, or last, half of a A b B c C d D.
template <class T, bool LAST, int... I>
LW_INLINE typename Of<T>::V woven(typename Of<T>::V a, typename Of<T>::V b,
                                  std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (I / 2 + (LAST ? L<T> / 2 : 0) + (I % 2 ? L<T> : 0))...);
}
template <class T, bool LAST>
LW_INLINE typename Of<T>::V woven(typename Of<T>::V a, typename Of<T>::V b) {
  return woven<T, LAST>(a, b, std::make_integer_sequence<int, L<T>>());
}

// L rows of L numbers, turned in registers: log2(L) rounds of weaving row i with row i + L/2.
template <class T> LW_INLINE void turned_block(const T* from, long step, T* to, long to_step) {
  constexpr int l = L<T>;
  typename Of<T>::V row[l], next[l];
#pragma GCC unroll 16
  for (int i = 0; i < l; ++i) row[i] = at(from + i * step);
#pragma GCC unroll 4
  for (int round = 1; round < l; round *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < l / 2; ++i) {
      next[2 * i] = woven<T, false>(row[i], row[i + l / 2]);
      next[2 * i + 1] = woven<T, true>(row[i], row[i + l / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < l; ++i) row[i] = next[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < l; ++i) at(to + i * to_step) = row[i];
}

// [O/P][I][P] as [I/P][O][P], from one panel of I on: what the gradient of the inputs reads. The last
// rows and columns of either, fewer than a register's lanes, go one by one.
template <class T> void turned(int first, int I, int O, const T* w, T* t) {
  constexpr int p = P<T>, l = L<T>;
  for (int o = 0; o < O; o += l)
    for (int i = first; i < I; i += l) {
      const T* from = w + (long)(o / p) * p * I + (long)i * p + o % p;
      T* to = t + (long)(i / p) * p * O + (long)o * p + i % p;
      if (o + l <= O && i + l <= I) {
        turned_block<T>(from, p, to, p);
        continue;
      }
      for (int a = 0; a < l && o + a < O; ++a)
        for (int b = 0; b < l && i + b < I; ++b) to[a * p + b] = from[b * p + a];
    }
}

}  // namespace LW_SPACE
