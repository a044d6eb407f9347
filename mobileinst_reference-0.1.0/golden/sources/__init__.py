"""Who confirms a golden: PyTorch, SciPy, mpmath and independent modules."""
