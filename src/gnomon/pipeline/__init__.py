"""Compose components into pipelines."""

from gnomon.pipeline.pipeline import Pipeline

__all__ = ["Pipeline"]
