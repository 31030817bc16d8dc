"""One epoch, computed. Knows tensors and modules, never tables."""
