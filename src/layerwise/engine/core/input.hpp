// The input layer: numbers pass, codes of categories become one-hot columns or rows of a table.
//
// `step` numbers between two panels; table_of(k) is the k-th embedding, or its gradient.
#pragma once

#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

// Code 0 is no level: zeros.
template <class T, class Tables>
void spread(const LayerSpec& s, Tables table_of, int n, long step, const T* x, T* y) {
  constexpr int p = P<T>;
  const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
  for (int b = 0; b < n; ++b) {
    int to = 0, table = 0;
    for (; to < s.n; ++to) y[place(to, b)] = x[place(to, b)];
    for (size_t k = 0; k < s.codes.size(); ++k) {
      const int code = (int)x[place(s.n + k, b)], width = s.widths[k];
      if (width) {
        const T* row = table_of(table++) + (long)code * width;
        for (int c = 0; c < width; ++c) y[place(to + c, b)] = row[c];
        to += width;
      } else {
        for (int c = 0; c < s.codes[k]; ++c) y[place(to + c, b)] = T(code == c + 1);
        to += s.codes[k];
      }
    }
  }
}

template <class T, class Tables>
void collect(const LayerSpec& s, Tables table_of, int n, long step, const T* x, const T* dy) {
  constexpr int p = P<T>;
  const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
  for (int b = 0; b < n; ++b) {
    int from = s.n, table = 0;
    for (size_t k = 0; k < s.codes.size(); ++k) {
      const int code = (int)x[place(s.n + k, b)], width = s.widths[k];
      if (width) {
        T* row = table_of(table++) + (long)code * width;
        if (code)  // row 0 is no level: it stays zeros, as torch's padding_idx
          for (int c = 0; c < width; ++c) row[c] += dy[place(from + c, b)];
      }
      from += width ? width : s.codes[k];
    }
  }
}

}  // namespace LW_SPACE
