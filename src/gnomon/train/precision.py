"""Which arithmetic the forward pass uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def in_precision(forward: Callable[[Any], Tensor], precision: str, device: torch.device) -> Callable[[Any], Tensor]:
    """Return `forward` under autocast to bf16, or for fp32 `forward` itself, so that nothing is added to its cost."""
    if precision == "fp32":
        return forward
    wrapped: Callable[[Any], Tensor] = torch.autocast(device.type, dtype=torch.bfloat16)(forward)
    return wrapped
