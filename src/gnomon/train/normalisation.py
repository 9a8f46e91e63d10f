"""The normalisation layers of a transformer."""

from __future__ import annotations

from torch import nn

from gnomon.spec import ModelSpec


def make_norm(spec: ModelSpec, size: int) -> nn.Module:
    """Return the normalisation layer that the spec asks for."""
    return nn.RMSNorm(size, eps=1e-6) if spec.norm == "rmsnorm" else nn.LayerNorm(size, bias=spec.norm_bias)
