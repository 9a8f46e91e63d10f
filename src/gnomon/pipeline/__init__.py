"""Compose components into pipelines."""
