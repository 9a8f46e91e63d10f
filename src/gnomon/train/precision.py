"""Which arithmetic the forward pass uses, and what fp16 needs besides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gnomon.errors import ConfigError
from gnomon.strategy.base import Strategy

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def in_precision(forward: Callable[[Any], Tensor], precision: str, device: torch.device) -> Callable[[Any], Tensor]:
    """Return `forward` under autocast, or for fp32 `forward` itself, so that nothing is added to its cost."""
    if precision == "fp32":
        return forward
    wrapped: Callable[[Any], Tensor] = torch.autocast(device.type, dtype=_DTYPES[precision])(forward)
    return wrapped


def create_scaler(precision: str, strategy: Strategy) -> torch.amp.GradScaler | None:
    """Return the loss scaler that keeps small fp16 gradients from vanishing (arXiv 1710.03740); None if not fp16.

    Raises ConfigError for a strategy that cannot scale the loss.
    """
    if precision != "fp16":
        return None
    if not strategy.can_scale_loss:
        raise ConfigError(f"precision=fp16 needs a scaled loss, which strategy={strategy.name} has not. Set bf16.")
    return torch.amp.GradScaler(strategy.device.type)
