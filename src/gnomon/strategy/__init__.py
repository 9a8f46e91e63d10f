"""One file per way to distribute training."""
