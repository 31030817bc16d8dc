// Several epochs in one go: train, measure, keep the best weights, stop when nothing is gained.
//
// Small networks take less time for an epoch than Python for a look at it. What happens is what the
// loop of epochs in Python does, in the same order, with the same numbers.
#pragma once

#include <chrono>
#include <cmath>
#include <limits>
#include <vector>

#include "request.hpp"

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// What to do. Orders, rates and seeds of the epochs follow each other in memory.
struct Several {
  long n_epochs = 0;
  Data train, held;       // `held` decides on the best epoch
  Part part;              // of it
  Request ask;            // of the first epoch
  long n_rates = 0;       // numbers in `rates` for one epoch
  const int64_t* seeds = nullptr;  // of dropout
  std::vector<long> looks;         // for each epoch at how manieth steps to look; 0 for none
  char* outputs = nullptr;         // (n_epochs, part.n, n_outputs), or null
  long outputs_of_one = 0;         // bytes
  double best = std::numeric_limits<double>::quiet_NaN();  // so far; NaN where there is none
  double min_delta = 0;
  long without_gain = 0, patience = 0;  // epochs since the best one; 0 never stops
  bool begun = false;                   // whether there was an epoch before
};

// One epoch's numbers.
struct Passed {
  Outcome outcome;
  double loss;  // of the rows that decide, by their weights
  double ended;
  Seen seen;    // empty where nothing was to be looked at
};

// How far it came: also true when an exception ended it.
struct ToldOfSeveral {
  std::vector<Passed> passed;
  long best = -1;  // which of them was the best, if one was better than before
  Outcome last;    // of an epoch that did not come to its end
};

inline void run(Core& core, const Several& want, const LossSpec& loss, std::vector<Group>& groups,
                ToldOfSeveral& told, const Poll& poll) {
  told = {};
  double best = want.best;
  long without_gain = want.without_gain;
  Request ask = want.ask;
  for (long e = 0; e < want.n_epochs; ++e) {
    if (want.seeds) core.seed(want.seeds[e]);
    core.watch(want.looks[e]);
    const Outcome outcome = core.epoch(want.train, ask, loss, groups, poll);
    if (outcome.bad_from >= 0 || (!outcome.complete && (want.begun || e))) {
      told.last = outcome;  // a part of an epoch is no epoch, but for the first
      return;
    }
    void* outputs = want.outputs ? want.outputs + e * want.outputs_of_one : nullptr;
    const auto [sum, weight] = core.measure(want.held, want.part, loss, outputs, poll);
    const double value = weight ? sum / weight : std::numeric_limits<double>::quiet_NaN();
    const bool gain = std::isfinite(value) && !(value >= best - want.min_delta);  // also if best is NaN
    if (gain) core.keep();
    told.passed.push_back({outcome, value, now(), want.looks[e] ? core.seen() : Seen()});
    ++without_gain;
    if (gain) {
      best = value;
      told.best = e;
      without_gain = 0;
    }
    if (!outcome.complete || now() > ask.deadline) break;
    if (want.patience && without_gain >= want.patience) break;
    ask.order += want.train.n;
    if (ask.rates) ask.rates += want.n_rates;
  }
}
