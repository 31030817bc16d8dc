// Memory of a network: buffers on cache lines, and where in them a parameter of torch is.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "vectors.hpp"

namespace LW_SPACE {

// Memory on cache lines, zeroed.
template <class T> class Buffer {
 public:
  explicit Buffer(long n = 0) { resize(n); }
  void resize(long n) {
    memory_.assign(n * sizeof(T) / 64 + 2, Line{});
    size_ = n;
  }
  T* data() { return reinterpret_cast<T*>(memory_.data()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.data()); }
  long size() const { return size_; }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  std::vector<Line> memory_;
  long size_ = 0;
};

// Fewer numbers than a panel has columns, in moves of fixed sizes.
template <class T> LW_INLINE void copy_few(T* to, const T* from, int many) {
  if (many & 8) {
    std::memcpy(to, from, 8 * sizeof(T));
    to += 8, from += 8;
  }
  if (many & 4) {
    std::memcpy(to, from, 4 * sizeof(T));
    to += 4, from += 4;
  }
  if (many & 2) {
    std::memcpy(to, from, 2 * sizeof(T));
    to += 2, from += 2;
  }
  if (many & 1) *to = *from;
}

// Where a parameter or running statistic of torch is in the flat buffer, and in which form.
struct Slot {
  enum Form { matrix, vector, plain } form;  // matrix: (O, I) as [O/P][I][P]
  int rows, columns;
  long at, length;
};

// To the buffer from torch's array, or back.
template <class T, bool IN> void moved(const Slot& s, T* all, T* outside) {
  constexpr int p = P<T>;
  T* flat = all + s.at;
  const auto one = [](T& in, T& out) {
    if constexpr (IN) in = out;
    else out = in;
  };
  if (s.form != Slot::matrix) {
    for (long i = 0; i < (long)s.rows * s.columns; ++i) one(flat[i], outside[i]);
    return;
  }
  for (int o = 0; o < s.rows; ++o)
    for (int i = 0; i < s.columns; ++i)
      one(flat[((long)(o / p) * s.columns + i) * p + o % p], outside[(long)o * s.columns + i]);
}

// Sum of squares of a parameter, without what fills up its last panel. Registers add up a few dozen
// rows at a time in its own type, the rest is in double.
template <class T> double squared(const Slot& s, const T* flat) {
  constexpr int p = P<T>;
  const bool matrix = s.form == Slot::matrix;
  const long columns = matrix ? s.rows : (long)s.rows * s.columns, deep = matrix ? s.columns : 1;
  const long whole = columns / p * p * deep;  // numbers of the panels that are full
  double sum = 0;
  typename Of<T>::V part = {};
  const auto add = [&](int lanes) {
    for (int i = 0; i < lanes; ++i) sum += part[i];
    part = typename Of<T>::V{};
  };
  for (long i = 0; i < whole; i += L<T>) {
    part += at(flat + i) * at(flat + i);
    if ((i / L<T>) % 64 == 63) add(L<T>);
  }
  add(L<T>);
  for (long c = whole / deep; c < columns; c += L<T>) {
    for (long k = 0; k < deep; ++k) {
      const auto one = at(flat + whole + k * p + c % p);
      part += one * one;
      if (k % 64 == 63) add((int)std::min<long>(L<T>, columns - c));
    }
    add((int)std::min<long>(L<T>, columns - c));
  }
  return sum;
}

}  // namespace LW_SPACE
