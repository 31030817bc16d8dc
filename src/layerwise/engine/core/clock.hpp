// When to look up from long work.
#pragma once

#include <chrono>

#include "request.hpp"

namespace LW_SPACE {

// The clock, and every 20 ms a look at whether the caller wants to stop.
class Look {
 public:
  explicit Look(const Poll& poll) : poll_(poll), last_(now()) {}
  double operator()() {
    const double time = now();
    if (time - last_ > 0.02) {
      last_ = time;
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
  double last_;
};

}  // namespace LW_SPACE
