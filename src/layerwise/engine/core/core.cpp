// One instruction set's core: compiled once for each, with LW_SPACE, LW_BYTES and LW_MAKE set.
#include "network.hpp"

std::unique_ptr<Core> LW_MAKE(const std::vector<LayerSpec>& plan, int n_inputs, bool in_double) {
  if (in_double) return std::make_unique<LW_SPACE::Network<double>>(plan, n_inputs);
  return std::make_unique<LW_SPACE::Network<float>>(plan, n_inputs);
}
