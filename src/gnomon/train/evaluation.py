"""Averages over the evaluation batches of all ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gnomon.strategy.collectives import Collectives

if TYPE_CHECKING:
    from torchmetrics import Metric


class WeightedMean:
    """The mean of losses, each weighted by its number of samples, over the batches of all ranks."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device="cpu" if device.type == "mps" else device)

    def add(self, loss: Tensor, samples: int) -> None:
        """Take the mean loss of a batch of so many samples; nothing waits for the device."""
        self._sums += torch.stack([loss.detach().double() * samples, loss.new_full((), samples).double()]).to(
            self._sums.device
        )

    def compute(self, collectives: Collectives) -> float | None:
        """Return the mean over all ranks, or None if no rank had a sample."""
        total, samples = collectives.all_reduce(self._sums, "sum").tolist()
        return total / samples if samples else None


def synchronised(metric: Metric, collectives: Collectives, world_size: int) -> Metric:
    """Let a metric gather its state through our collectives, whichever backend they use; return it."""
    metric.dist_sync_fn = lambda value, group=None: _gather(value, collectives)
    metric.distributed_available_fn = lambda: world_size > 1
    return metric


def total_states(metrics: Mapping[str, Metric]) -> dict[str, dict[str, Tensor]]:
    """Return the states of the metrics added over all ranks; a metric that keeps lists of tensors has none here."""
    states = {}
    for name, metric in metrics.items():
        metric.sync(
            dist_sync_fn=metric.dist_sync_fn, distributed_available=metric.distributed_available_fn, should_sync=True
        )
        try:
            values = {key: getattr(metric, key) for key in metric._defaults}
            states[name] = {key: value.clone() for key, value in values.items() if isinstance(value, Tensor)}
        finally:
            if metric._is_synced:
                metric.unsync()
    return {name: state for name, state in states.items() if state}


def set_states(metrics: Mapping[str, Metric], states: Mapping[str, Mapping[str, Tensor]], is_main: bool) -> None:
    """Give rank 0 the states of all ranks together, so that their sum is right on any number of ranks."""
    for name, metric in metrics.items():
        metric.reset()
        if is_main:
            for key, value in states.get(name, {}).items():
                setattr(metric, key, value.clone())
            metric._update_count = 1 if name in states else 0


def plain(values: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """Return computed metrics as numbers, named `prefix` + name; one of several values is numbered."""
    row: dict[str, float] = {}
    for name, value in values.items():
        flat = torch.as_tensor(value).flatten().tolist()
        names = [f"{prefix}{name}"] if len(flat) == 1 else [f"{prefix}{name}_{index}" for index in range(len(flat))]
        row |= dict(zip(names, flat, strict=True))
    return row


def _gather(value: Tensor, collectives: Collectives) -> list[Tensor]:
    return [each.to(value.device) for each in collectives.gather_objects(value.detach().cpu())]
