"""Exact return distributions and measures between them. NumPy only."""
