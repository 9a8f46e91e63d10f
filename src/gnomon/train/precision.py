"""Which arithmetic the forward pass uses."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def forward_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of every forward pass: autocast to bf16, or for fp32 one that does nothing.

    The context may be entered again and again, but not inside itself.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
