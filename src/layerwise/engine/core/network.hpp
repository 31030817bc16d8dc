// A plan, run: batches gathered by index, epochs of steps, answers to many rows.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "clock.hpp"
#include "flushing.hpp"
#include "losses.hpp"
#include "memory.hpp"
#include "optimizers.hpp"
#include "request.hpp"
#include "rows.hpp"
#include "seen.hpp"
#include "stack.hpp"

namespace LW_SPACE {

template <class T> class Network final : public Core {
  static constexpr int p = P<T>;

 public:
  Network(const std::vector<LayerSpec>& plan, int n_inputs)
      : stack_(plan, n_inputs), watching_(stack_) {}

  int n_outputs() const override { return stack_.n_outputs(); }
  std::vector<Place> parameters() const override { return places(stack_.slots); }
  std::vector<Place> statistics() const override { return places(stack_.statistic_slots); }

  // Buffers: 0 the parameters, 1 their gradients, 2 to 4 what the optimizer remembers of each, 5 the
  // running statistics, 6 and 7 parameters and statistics as they were kept. Arrays outside are as
  // torch has them.
  void put(int buffer, int slot, const void* from) override {
    T* outside = const_cast<T*>(static_cast<const T*>(from));
    moved<T, true>(slot_of(buffer, slot), memory(buffer), outside);
  }
  void get(int buffer, int slot, void* to) override {
    moved<T, false>(slot_of(buffer, slot), memory(buffer), static_cast<T*>(to));
  }
  long batches(int layer) const override { return stack_.layers.at(layer).batches; }
  void set_batches(int layer, long n) override { stack_.layers.at(layer).batches = n; }
  void seed(uint64_t s) override { stack_.seed(s); }

  // A copy of all that answers depend on, until the next.
  void keep() override {
    kept_ = stack_.theta;
    kept_statistics_ = stack_.statistics;
    kept_batches_.clear();
    for (const auto& layer : stack_.layers) kept_batches_.push_back(layer.batches);
  }
  bool has_kept() const override { return kept_batches_.size() == stack_.layers.size(); }
  long kept_batches(int layer) const override { return kept_batches_.at(layer); }

  void watch(long every) override { watching_.every(every); }
  Seen seen() override { return watching_.seen(); }

  // Outputs of shape (n, n_outputs), row by row, in evaluation mode.
  void predict(const void* rows_of_X, long n, void* to, const Poll& poll) override {
    const T* X = static_cast<const T*>(rows_of_X);
    in_chunks(n, poll, [&](long from, int rows) {
      stack_.gather(X + from * stack_.n_inputs, nullptr, rows);
      answers(stack_.forward(rows, false), rows, static_cast<T*>(to) + from * n_outputs());
    });
  }

  // Sum of the loss over these rows in evaluation mode, and the weight that they stand for; the
  // outputs too, of shape (n, n_outputs), unless they are null.
  std::pair<double, double> measure(const Data& data, const Part& part, const LossSpec& spec,
                                    void* outputs, const Poll& poll) override {
    const Rows<T> rows(data);
    const LossOf<T> loss = loss_of(spec);
    double sum = 0, weight = 0;
    in_chunks(part.n, poll, [&](long from, int n) {
      const int64_t* order = part.order ? part.order + from : nullptr;
      stack_.gather(order ? rows.X : rows.X + from * stack_.n_inputs, order, n);
      const T* z = stack_.forward(n, false);
      if (outputs) answers(z, n, static_cast<T*>(outputs) + from * n_outputs());
      const Batch<T> batch = targets_.gather(rows, order, from, n);
      const Summed told = batch_loss<T>(loss, n_outputs(), stack_.cap, z, batch, nullptr);
      sum += told.sum;
      weight += told.weight;
    });
    return {sum, weight};
  }

  // One batch's loss; its gradients are left in the gradient buffer.
  double gradients(const Data& data, const int64_t* order, long n, const LossSpec& spec) override {
    return gradients(Rows<T>(data), order, n, loss_of(spec));
  }

  // One epoch over rows in the given order.
  Outcome epoch(const Data& data, const Request& ask, const LossSpec& spec,
                std::vector<Group>& groups, const Poll& poll) override {
    const Rows<T> rows(data);
    const LossOf<T> loss = loss_of(spec);
    const Flushing flushing;
    Outcome told;
    Look look(poll);
    const std::vector<Run> runs = alike(groups);
    for (Buffer<T>& one : state_) need(one);
    long done = 0;
    double total = 0;
    const long n = rows.n, size = std::min(std::max(ask.batch_size, 1L), std::max(n, 1L));
    while (done < n) {
      long stop = std::min(done + size, n);
      if (n - stop == 1) stop = n;  // a last row alone joins the batch before
      if (told.steps && look() > ask.deadline) break;
      const int count = stop - done;
      const double value = gradients(rows, ask.order + done, count, loss);
      if (value - value != 0) {
        told.bad_from = done;
        told.bad_to = stop;
        break;
      }
      const bool looking = watching_.at_step(told.steps);
      if (looking) watching_.before_update(count);
      clip(ask.clip_value, ask.clip_norm);
      const double* rates = ask.rates ? ask.rates + told.steps * (long)groups.size() : nullptr;
      step(groups, runs, rates, ask.optimizer);
      if (looking) watching_.after_update();
      total += value * count;
      done = stop;
      ++told.steps;
    }
    told.rows = done;
    told.loss = done ? total / done : 0;
    told.complete = done == n;
    return told;
  }

 private:
  Stack<T> stack_;
  Watching<T> watching_;
  Targets<T> targets_;
  Buffer<T> state_[3], kept_, kept_statistics_;
  std::vector<long> kept_batches_;

  double gradients(const Rows<T>& rows, const int64_t* order, int n, const LossOf<T>& loss) {
    stack_.reserve(n);
    stack_.gather(rows.X, order, n);
    const T* z = stack_.forward(n, true);
    T* dz = stack_.layers.empty() ? stack_.spare.data() : stack_.layers.back().dy.data();
    const Batch<T> batch = targets_.gather(rows, order, 0, n);
    const Summed told = batch_loss<T>(loss, n_outputs(), stack_.cap, z, batch, dz);
    const double value = told.sum / told.divisor;
    if (value - value != 0) return value;  // NaN or infinite: nothing is to be learnt from it
    stack_.backward(n);
    return value;
  }

  // Panels of outputs to rows.
  void answers(const T* z, int rows, T* to) const {
    for (int b = 0; b < rows; ++b)
      for (int o = 0; o < n_outputs(); ++o)
        to[b * n_outputs() + o] = z[(o / p) * stack_.cap * p + (long)b * p + o % p];
  }

  // Rows a few at a time, so that hidden layers stay in the cache.
  template <class F> void in_chunks(long n, const Poll& poll, F f) {
    constexpr long chunk = 256;
    stack_.reserve(std::min(n, chunk));
    Look look(poll);
    for (long from = 0; from < n; from += chunk) {
      f(from, (int)std::min(chunk, n - from));
      look();
    }
  }

  static LossOf<T> loss_of(const LossSpec& s) {
    return {s.kind, T(s.a), static_cast<const T*>(s.weight), s.ignored};
  }
  static std::vector<Place> places(const std::vector<Slot>& slots) {
    std::vector<Place> found;
    for (const Slot& s : slots) found.push_back({s.rows, s.columns, s.at, s.at + s.length});
    return found;
  }
  const Slot& slot_of(int buffer, int i) const {
    return buffer == 5 || buffer == 7 ? stack_.statistic_slots.at(i) : stack_.slots.at(i);
  }
  T* memory(int buffer) {
    if (buffer == 5) return stack_.statistics.data();
    if (buffer == 0) return stack_.theta.data();
    if (buffer >= 6) return (buffer == 6 ? kept_ : kept_statistics_).data();
    return buffer == 1 ? stack_.grad.data() : need(state_[buffer - 2]).data();
  }
  Buffer<T>& need(Buffer<T>& b) {
    if (b.size() != stack_.size) b.resize(stack_.size);
    return b;
  }

  // Groups that are updated as one, where their learning rates are the same too.
  struct Run {
    size_t first, last;
  };
  static std::vector<Run> alike(const std::vector<Group>& groups) {
    std::vector<Run> runs;
    for (size_t i = 0; i < groups.size(); ++i)
      if (i && groups[i - 1].goes_on_in(groups[i])) runs.back().last = i;
      else runs.push_back({i, i});
    return runs;
  }

  void step(std::vector<Group>& groups, const std::vector<Run>& runs, const double* rates,
            OptimizerKind kind) {
    for (size_t i = 0; rates && i < groups.size(); ++i) groups[i].lr = rates[i];
    T *theta = stack_.theta.data(), *grad = stack_.grad.data();
    T *s0 = state_[0].data(), *s1 = state_[1].data(), *s2 = state_[2].data();
    for (const auto [first, last] : runs)
      for (size_t i = first; i <= last;) {
        size_t next = i + 1;
        while (next <= last && groups[next].lr == groups[i].lr) ++next;
        const long to = std::exchange(groups[i].to, groups[next - 1].to);
        update<T>(kind, groups[i], theta, grad, s0, s1, s2);
        groups[i].to = to;
        for (size_t k = i + 1; k < next; ++k) {
          groups[k].steps = groups[i].steps;
          groups[k].mu_product = groups[i].mu_product;
        }
        i = next;
      }
  }

  // By value, then by norm (Pascanu et al., 2013), each if above 0.
  void clip(double value, double norm) {
    T* g = stack_.grad.data();
    const long size = stack_.size;
    if (value > 0)
      for (long i = 0; i < size; i += L<T>) at(g + i) = within<T>(at(g + i), T(-value), T(value));
    if (norm > 0) {
      double squares = 0;
      for (const Slot& s : stack_.slots) squares += squared(s, g + s.at);
      const double by = norm / (std::sqrt(squares) + 1e-6);
      if (!(by >= 1))  // also NaN, which torch spreads to every gradient
        for (long i = 0; i < size; i += L<T>) at(g + i) *= T(by);
    }
  }
};

}  // namespace LW_SPACE
