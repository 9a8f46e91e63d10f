"""Checkpoints on disk: what is in them, read without executing anything."""
