// When to look up from long work.
#pragma once

#include <chrono>

#include "request.hpp"

namespace LW_SPACE {

// The time, and every 20 ms a look at whether the caller wants to stop. Asking the clock takes as
// long as a layer of a small network, so it is asked about every 50 us of work, however many calls
// that is; in between the time is the one that it was.
class Look {
 public:
  explicit Look(const Poll& poll) : poll_(poll), time_(now()), polled_(time_) {}
  double operator()() {
    if (--left_ > 0) return time_;
    const double time = now(), passed = time - time_;
    calls_ = passed < 25e-6 ? 2 * calls_ : passed > 100e-6 ? calls_ / 2 : calls_;
    left_ = calls_ = calls_ < 1 ? 1 : calls_ > 1000 ? 1000 : calls_;
    time_ = time;
    if (time - polled_ > 0.02) {
      polled_ = time;
      poll_();
    }
    return time;
  }

 private:
  static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  const Poll& poll_;
  double time_, polled_;
  long calls_ = 1, left_ = 1;
};

}  // namespace LW_SPACE
