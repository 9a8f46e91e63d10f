"""Training data as datasets, and as the micro-batches of a rank."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from gnomon.data.resumable import ResumableLoader, create_loader
from gnomon.errors import ConfigError, DataError
from gnomon.strategy.base import Strategy
from gnomon.train.supervised_settings import SupervisedConfig


class Arrays(TensorDataset):
    """Tensors of equal length as a dataset of tuples."""

    draws_random_numbers = False


def as_dataset(data: Any) -> Any:
    """Return an array, or a pair of arrays, as a dataset of tuples, and anything else as it is.

    Floating-point numbers of arrays that are no tensors get PyTorch's default type, which is that of new layers.
    """
    if isinstance(data, Dataset) or data is None:
        return data
    parts = [data] if hasattr(data, "shape") else data
    if not (isinstance(parts, tuple | list) and len(parts) in (1, 2) and all(hasattr(part, "shape") for part in parts)):
        return data
    tensors = [_as_tensor(part) for part in parts]
    if len(tensors[0]) != len(tensors[-1]):
        raise DataError(f"A dataset has {len(tensors[0])} inputs but {len(tensors[1])} targets.")
    return Arrays(*tensors)


def _as_tensor(part: Any) -> Tensor:
    tensor = torch.as_tensor(part)
    return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() and tensor is not part else tensor


def create_step_loader(
    dataset: Any,
    config: SupervisedConfig,
    strategy: Strategy,
    *,
    accumulation: int,
    num_workers: int = 0,
    shuffle: bool = True,
    last: Literal["drop", "pad"] = "drop",
) -> ResumableLoader:
    """Return this rank's micro-batches, `accumulation` per step; raise ConfigError for a batch that does not divide."""
    shard, shards = strategy.data_shard
    per_step = shards * accumulation
    if config.batch % per_step:
        raise ConfigError(
            f"batch={config.batch} does not divide by {shards} rank(s) x accumulation={accumulation}. "
            f"Set batch to a multiple of {per_step}."
        )
    return create_loader(
        dataset,
        global_batch=config.batch,
        micro_batch=config.batch // per_step,
        rank=shard,
        world_size=shards,
        seed=config.seed,
        shuffle=shuffle,
        last=last,
        num_workers=num_workers,
        pin_memory=strategy.device.type == "cuda",
    )
