"""Batches without end, on the device that computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from gnomon.data.fetch import PaddedBatch
from gnomon.errors import DataError


def endless(loader: Iterable[Any], device: torch.device) -> Iterator[Any]:
    """Yield the batches on `device`, over and over; raise DataError if there is none."""
    while True:
        batches = iter(loader if device.type == "cpu" else (move(batch, device) for batch in loader))
        first = next(batches, None)
        if first is None:
            raise DataError("The loader gave no batch at all. Give more data, or lower the batch.")
        yield first
        yield from batches


def move(batch: Any, device: torch.device) -> Any:
    """Return a batch with the tensors in its dicts, lists and tuples on `device`; a GPU may still be copying."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        moved = [move(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    return batch


def count_samples(batch: Any) -> int:
    """Return how many samples of a batch count: the length of its first tensor, less what only fills it up.

    Raises DataError for a batch without a tensor.
    """
    if isinstance(batch, Tensor) and batch.dim():
        return batch.shape[0]
    if isinstance(batch, PaddedBatch):
        return int(batch.valid.sum())
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        return count_samples(part)
    raise DataError(f"A batch is a {type(batch).__name__} without a tensor; how many samples it has is unknown.")
