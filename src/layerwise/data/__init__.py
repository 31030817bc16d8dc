"""From anything table-like to the network's matrix and back; knows nothing of torch."""
