// A linear layer's products over the bins of numbers, by what is known of these: of a number's K bins
// the first k are 1, the next one is f, and the others are 0.
//
// With running sums of the weights, E[j] = W[0] + … + W[j - 1], a row's sum over a number's bins is
//   W[0] + … + W[k - 1] + f W[k] = (1 - f) E[k] + f E[k + 1],
// and so the gradient of E has two terms of each row, and that of W[j] is dE[j + 1] + … + dE[K]. For
// K products a row that is two, and for each batch the running sums.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "memory.hpp"
#include "products.hpp"
#include "request.hpp"
#include "vectors.hpp"

namespace LW_SPACE {

template <class T> class Steps {
  static constexpr int p = P<T>, l = L<T>;
  using V = typename Of<T>::V;

 public:
  Steps() = default;
  Steps(const LayerSpec& s, int outputs) {
    int column = s.n, rows = 0;
    for (int c = 0; c < (int)s.edges.size(); ++c) {
      const int bins = std::max((int)s.edges[c].size() - 1, 0);
      if (!bins) continue;
      if (groups_.empty() || groups_.back().rows + bins + 1 > HELD)
        groups_.push_back({(int)numbers_.size(), 0, 0});
      Group& group = groups_.back();
      numbers_.push_back({c, column, bins, group.rows});
      group.last = (int)numbers_.size();
      group.rows += bins + 1;
      rows = std::max(rows, group.rows);
      column += bins;
    }
    if (outputs < WORTH_OUTPUTS || column - s.n < WORTH_BINS * (int)numbers_.size()) groups_.clear();
    if (groups_.empty()) return;
    gap_ = {s.n, column};
    table_.resize((long)rows * STEP_PANELS * p);
    for (size_t i = 0; i < numbers_.size();) {
      Lanes one{numbers_[i].input / p, (int)i, (int)i, Buffer<T>()};
      int most = 1;
      for (; i < numbers_.size() && numbers_[i].input / p == one.panel; one.last = (int)++i)
        most = std::max(most, numbers_[i].bins);
      one.inner.resize((long)(most - 1) * p);
      // where a number has fewer bins there is an edge that no number comes to
      std::fill_n(one.inner.data(), (long)(most - 1) * p, std::numeric_limits<T>::quiet_NaN());
      for (int k = one.first; k < one.last; ++k) {
        const auto& edges = s.edges[numbers_[k].input];
        for (int j = 1; j < numbers_[k].bins; ++j)
          one.inner.data()[(j - 1) * (long)p + numbers_[k].input % p] = T(edges[j]);
      }
      lanes_.push_back(std::move(one));
    }
  }

  explicit operator bool() const { return !groups_.empty(); }
  Gap gap() const { return gap_; }  // the columns that are taken here

  // The bins that the numbers of n rows are in: x is the input layer's input, y its output. Both
  // products are of the rows that were found last.
  void find(int n, long step, const T* x, const T* y) {
    const size_t count = numbers_.size();
    if (spots_.size() < n * count) spots_.resize(n * count);
    for (const Lanes& one : lanes_)
      for (int b = 0; b < n; ++b) {
        const T* row = x + one.panel * step + (long)b * p;
        typename Of<T>::I full[NV] = {};
        for (long j = 0; j < one.inner.size(); j += p)
#pragma GCC unroll 4
          for (int k = 0; k < NV; ++k) full[k] -= at(row + k * l) >= at(one.inner.data() + j + k * l);
        for (int i = one.first; i < one.last; ++i) {
          const Number& number = numbers_[i];
          const int lane = number.input % p, k = (int)full[lane / l][lane % l], c = number.column + k;
          const T f = y[(c / p) * step + (long)b * p + c % p];
          spots_[b * count + i] = {number.row + k, 1 - f, f};
        }
      }
  }

  // z += what the bins give
  void forward(int n, int panels, const T* w, long w_panel, T* z, long z_panel) {
    by_panels(panels, [&]<int NP>(int q) { forward_of<NP>(n, w + q * w_panel, w_panel, z + q * z_panel, z_panel); });
  }
  // dw of the bins
  void gradient(int n, int panels, const T* dz, long z_panel, T* dw, long w_panel) {
    by_panels(panels, [&]<int NP>(int q) { gradient_of<NP>(n, dz + q * z_panel, z_panel, dw + q * w_panel, w_panel); });
  }

 private:
  // So many panels go together, for what is read of a spot is the same for all of them; and so many
  // rows of the table, for it to stay in the first-level cache.
  static constexpr int STEP_PANELS = LW_BYTES > 16 ? 2 : 1, HELD = 320 / STEP_PANELS;
  // With fewer outputs, or bins for each number, the dense product is as fast.
  static constexpr int WORTH_OUTPUTS = 32, WORTH_BINS = 8;

  struct Number {
    int input, column, bins, row;  // its column of the inputs, its first bin's, its first of the table
  };
  struct Group {  // numbers whose running sums are in the table at the same time
    int first, last, rows;
  };
  struct Lanes {  // numbers of one panel, and the edges between their bins
    int panel, first, last;
    Buffer<T> inner;
  };
  struct Spot {
    int row;
    T low, high;  // 1 - f and f
  };
  std::vector<Number> numbers_;
  std::vector<Group> groups_;
  std::vector<Lanes> lanes_;
  std::vector<Spot> spots_;  // [row of the batch][number]
  Buffer<T> table_;
  Gap gap_;

  template <class F> static void by_panels(int panels, F f) {
    int q = 0;
    for (; q + STEP_PANELS <= panels; q += STEP_PANELS) f.template operator()<STEP_PANELS>(q);
    for (; q < panels; ++q) f.template operator()<1>(q);
  }
  // Register k of some panels' row; their rows in the table are side by side.
  template <class U> LW_INLINE static auto& part(U* row, long panel, int k) {
    return at(row + k / NV * panel + k % NV * l);
  }

  template <int NP> void forward_of(int n, const T* w, long w_panel, T* z, long z_panel) {
    constexpr int R = NP * NV, wide = NP * p;
    for (const Group& group : groups_) {
      for (int i = group.first; i < group.last; ++i) {
        const Number& number = numbers_[i];
        T* e = table_.data() + (long)number.row * wide;
        const T* one = w + (long)number.column * p;
        V sum[R] = {};
        for (int j = 0; j <= number.bins; ++j, e += wide, one += p)
#pragma GCC unroll 8
          for (int k = 0; k < R; ++k) {
            part(e, p, k) = sum[k];
            if (j < number.bins) sum[k] += part(one, w_panel, k);
          }
      }
      for (int b = 0; b < n; ++b) {
        const Spot* spots = spots_.data() + b * numbers_.size();
        T* row = z + (long)b * p;
        V low[R], high[R] = {};  // two sums, as an addition waits for the one before
#pragma GCC unroll 8
        for (int k = 0; k < R; ++k) low[k] = part(row, z_panel, k);
        for (int i = group.first; i < group.last; ++i) {
          const T* e = table_.data() + (long)spots[i].row * wide;
#pragma GCC unroll 8
          for (int k = 0; k < R; ++k) {
            low[k] += spots[i].low * part(e, p, k);
            high[k] += spots[i].high * part(e + wide, p, k);
          }
        }
#pragma GCC unroll 8
        for (int k = 0; k < R; ++k) part(row, z_panel, k) = low[k] + high[k];
      }
    }
  }

  template <int NP> void gradient_of(int n, const T* dz, long z_panel, T* dw, long w_panel) {
    constexpr int R = NP * NV, wide = NP * p;
    for (const Group& group : groups_) {
      std::fill_n(table_.data(), (long)group.rows * wide, T(0));
      for (int b = 0; b < n; ++b) {
        const Spot* spots = spots_.data() + b * numbers_.size();
        V d[R];
#pragma GCC unroll 8
        for (int k = 0; k < R; ++k) d[k] = part(dz + (long)b * p, z_panel, k);
        for (int i = group.first; i < group.last; ++i) {
          T* e = table_.data() + (long)spots[i].row * wide;
          const V low = all(spots[i].low), high = all(spots[i].high);
#pragma GCC unroll 8
          for (int k = 0; k < R; ++k) {
            part(e, p, k) += low * d[k];
            part(e + wide, p, k) += high * d[k];
          }
        }
      }
      for (int i = group.first; i < group.last; ++i) {
        const Number& number = numbers_[i];
        const T* e = table_.data() + (long)(number.row + number.bins) * wide;
        T* one = dw + (long)(number.column + number.bins - 1) * p;
        V sum[R] = {};
        for (int j = 0; j < number.bins; ++j, e -= wide, one -= p)
#pragma GCC unroll 8
          for (int k = 0; k < R; ++k) part(one, w_panel, k) = sum[k] += part(e, p, k);
      }
    }
  }
};

}  // namespace LW_SPACE
