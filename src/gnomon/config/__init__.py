"""Compose, validate and instantiate configurations."""
