// The input layer: numbers pass, and say how far they fill each of their bins; codes of categories
// become one-hot columns or rows of a table.
//
// `step` numbers between two panels; table_of(k) is the k-th embedding, or its gradient.
#pragma once

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "memory.hpp"
#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

// Numbers, then for each bin clamp((x - left) / (right - left), 0, 1): all columns are computed
// alike, as within((x - left) * scale, low, high) of the number that they are of.
template <class T> class Bins {
  static constexpr int p = P<T>;

 public:
  Bins() = default;
  explicit Bins(const LayerSpec& s) : numbers_(s.n), columns_(s.n) {
    for (const auto& edges : s.edges) columns_ += edges.empty() ? 0 : (int)edges.size() - 1;
    const int width = panels<T>(columns_) * p;
    for (Buffer<T>* one : {&left_, &scale_, &low_, &high_, &lanes_}) one->resize(width);
    pieces_.resize(panels<T>(columns_));
    for (int c = 0; c < width; ++c) lanes_.data()[c] = T(c % p);
    constexpr T far = std::numeric_limits<T>::infinity();
    for (int c = 0; c < numbers_; ++c) column(c, c, 0, 1, -far, far);
    int c = numbers_;
    for (int k = 0; k < (int)s.edges.size(); ++k)
      for (size_t i = 1; i < s.edges[k].size(); ++i) {
        const T left = T(s.edges[k][i - 1]);
        column(c++, k, left, 1 / (T(s.edges[k][i]) - left), 0, 1);
      }
  }

  int columns() const { return columns_; }

  // Rows x, of which the numbers are the first columns, into the first columns of y.
  void fill(int n, long step, const T* x, T* y) const {
    const int whole = numbers_ / p;  // panels of numbers only
    for (int q = 0; q < whole; ++q) std::memcpy(y + q * step, x + q * step, (long)n * p * sizeof(T));
    for (int q = whole; q < (int)pieces_.size(); ++q)
      for (int b = 0; b < n; ++b) {
        const T* row = x + (long)b * p;
        T* to = y + q * step + (long)b * p;
        for (int c = 0; c < p; c += L<T>) {
          const int at_c = q * p + c;
          typename Of<T>::V v = {};
          for (const Piece& one : pieces_[q])
            v = at(lanes_.data() + at_c) >= all(T(one.lane)) ? all(row[one.panel * step + one.place]) : v;
          v = (v - at(left_.data() + at_c)) * at(scale_.data() + at_c);
          const auto low = at(low_.data() + at_c), high = at(high_.data() + at_c);
          at(to + c) = v < low ? low : (v > high ? high : v);
        }
      }
  }

 private:
  struct Piece {  // from this lane on a panel's columns are of this number
    int lane;
    long panel, place;
  };
  int numbers_ = 0, columns_ = 0;
  Buffer<T> left_, scale_, low_, high_, lanes_;
  std::vector<std::vector<Piece>> pieces_;

  void column(int c, int number, T left, T scale, T low, T high) {
    left_.data()[c] = left;
    scale_.data()[c] = scale;
    low_.data()[c] = low;
    high_.data()[c] = high;
    auto& pieces = pieces_[c / p];
    const long panel = number / p, place = number % p;
    if (pieces.empty() || pieces.back().panel != panel || pieces.back().place != place)
      pieces.push_back({c % p, panel, place});
  }
};

// Code 0 is no level: zeros.
template <class T, class Tables>
void spread(const LayerSpec& s, const Bins<T>& bins, Tables table_of, int n, long step, const T* x,
            T* y) {
  constexpr int p = P<T>;
  const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
  bins.fill(n, step, x, y);
  for (int b = 0; b < n && !s.codes.empty(); ++b) {
    int to = bins.columns(), table = 0;
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
void collect(const LayerSpec& s, const Bins<T>& bins, Tables table_of, int n, long step, const T* x,
             const T* dy) {
  constexpr int p = P<T>;
  const auto place = [step](int c, int b) { return (c / p) * step + (long)b * p + c % p; };
  for (int b = 0; b < n; ++b) {
    int from = bins.columns(), table = 0;
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
