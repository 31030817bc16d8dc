// The rows to learn from or to measure, by their types, and the targets of a batch of them.
#pragma once

#include <vector>

#include "request.hpp"

namespace LW_SPACE {

// Of y (n, width) and classes (n,) one is null; w (n,) may be.
template <class T> struct Batch {
  const T* y = nullptr;
  const int64_t* classes = nullptr;
  const T* w = nullptr;
};

template <class T> struct Rows {
  long n;
  const T *X, *y, *w;
  const int64_t* classes;
  int width;

  explicit Rows(const Data& d)
      : n(d.n), X(static_cast<const T*>(d.X)), y(static_cast<const T*>(d.y)),
        w(static_cast<const T*>(d.w)), classes(d.classes), width(d.n_targets) {}

  // Targets and weights as they stand, from a row on.
  Batch<T> from(long row) const {
    return {y ? y + row * width : nullptr, classes ? classes + row : nullptr, w ? w + row : nullptr};
  }
};

// A batch's targets and weights, next to each other.
template <class T> class Targets {
 public:
  Batch<T> gather(const Rows<T>& rows, const int64_t* order, int n) {
    const int width = rows.width;
    Batch<T> found;
    if (rows.y) {
      y_.resize((long)n * width);
      for (int b = 0; b < n; ++b)
        for (int o = 0; o < width; ++o) y_[(long)b * width + o] = rows.y[order[b] * width + o];
      found.y = y_.data();
    }
    if (rows.classes) {
      classes_.resize(n);
      for (int b = 0; b < n; ++b) classes_[b] = rows.classes[order[b]];
      found.classes = classes_.data();
    }
    if (rows.w) {
      w_.resize(n);
      for (int b = 0; b < n; ++b) w_[b] = rows.w[order[b]];
      found.w = w_.data();
    }
    return found;
  }

 private:
  std::vector<T> y_, w_;
  std::vector<int64_t> classes_;
};

}  // namespace LW_SPACE
