"""A run written out as one plain PyTorch script, which needs no layerwise."""
