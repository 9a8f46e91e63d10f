"""Compute in the backward pass again instead of keeping (arXiv 1604.06174)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint

from gnomon.runtime.scopes import RECOMPUTE_SCOPE


def recomputed(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Return `function(*inputs)`, of which only the inputs are kept; `function` may not draw random numbers."""
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if not torch.compiler.is_compiling():  # the compiler knows no such scopes
        options["context_fn"] = _scopes
    output: Tensor = checkpoint(function, *inputs, **options)
    return output


def _scopes() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Return what the first and what the second computation happens in."""
    return nullcontext(), record_function(RECOMPUTE_SCOPE)
