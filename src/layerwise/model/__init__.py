"""What is kept of a training, and used: raw columns to answers."""
