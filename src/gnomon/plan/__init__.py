"""The performance model: pure mathematics over NumPy arrays."""
