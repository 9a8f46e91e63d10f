"""Whether weights and figures are finite, decided by all ranks together."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from gnomon.strategy.collectives import Collectives


def first_not_finite(named: Iterable[tuple[str, Tensor]], collectives: Collectives) -> str | None:
    """Return the name of a tensor with a value that is not finite on any rank, or None, alike on every rank."""
    return next((name for name in collectives.gather_objects(not_finite(named)) if name is not None), None)


def not_finite(named: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor with a value that is not finite in this rank's part of it, or None."""
    names, flags = [], []
    for name, tensor in named:
        local = getattr(tensor, "ds_tensor", tensor)  # where DeepSpeed keeps a rank's share of a weight
        local = local.to_local() if hasattr(local, "to_local") else local
        names.append(name)
        flags.append(local.detach().isfinite().all())
    devices = {flag.device for flag in flags}
    # one device is waited for once, however many weights there are
    found = torch.stack(flags).tolist() if len(devices) == 1 else [bool(flag) for flag in flags]
    return next((name for name, is_finite in zip(names, found, strict=True) if not is_finite), None)
