"""Micro-benchmarks that measure what one rank achieves on its share of a machine."""
