"""Datasets, samplers and loaders with resumable state."""
