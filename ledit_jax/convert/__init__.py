"""Weights between PyTorch checkpoints and ours: name tables, checked shapes, pure functions on NumPy arrays."""
