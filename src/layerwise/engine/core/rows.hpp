// The rows to learn from or to measure, by their types, and the targets of a batch of them.
#pragma once

#include <vector>

#include "layers.hpp"
#include "memory.hpp"
#include "request.hpp"

namespace LW_SPACE {

template <class T> struct Rows {
  long n;
  const T *X, *y, *w;
  const int64_t* classes;
  int width;

  explicit Rows(const Data& d)
      : n(d.n), X(static_cast<const T*>(d.X)), y(static_cast<const T*>(d.y)),
        w(static_cast<const T*>(d.w)), classes(d.classes), width(d.n_targets) {}
};

// A batch's targets, of which y in panels of n rows or classes is null, and weights or null.
template <class T> struct Batch {
  int n;
  const T* y = nullptr;
  const int64_t* classes = nullptr;
  const T* w = nullptr;
};

template <class T> class Targets {
 public:
  // Those of the rows in `order`, or of n rows from one on where it is null.
  Batch<T> gather(const Rows<T>& rows, const int64_t* order, long from, int n) {
    Batch<T> found{n};
    if (rows.y) {
      const int width = rows.width;
      const long size = (long)panels<T>(width) * n * P<T>;
      if (y_.size() < size || n_ != n) y_.resize(size);  // what fills up the last panel is 0
      n_ = n;
      for (int b = 0; b < n; ++b) {
        const T* row = rows.y + (order ? order[b] : from + b) * width;
        T* to = y_.data() + (long)b * P<T>;
        int o = 0;
        for (; o + P<T> <= width; o += P<T>, to += (long)n * P<T>) std::memcpy(to, row + o, 64);
        copy_few(to, row + o, width - o);
      }
      found.y = y_.data();
    }
    found.classes = picked(rows.classes, classes_, order, from, n);
    found.w = picked(rows.w, w_, order, from, n);
    return found;
  }

 private:
  int n_ = 0;
  Buffer<T> y_;
  std::vector<T> w_;
  std::vector<int64_t> classes_;

  template <class A>
  static const A* picked(const A* all, std::vector<A>& kept, const int64_t* order, long from, int n) {
    if (!all || !order) return all ? all + from : nullptr;
    kept.resize(n);
    for (int b = 0; b < n; ++b) kept[b] = all[order[b]];
    return kept.data();
  }
};

}  // namespace LW_SPACE
