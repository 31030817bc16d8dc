"""What is trained: a plan of layers, the same plan as nn.Sequential, and in NumPy."""
