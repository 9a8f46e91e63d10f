"""Batches of any dataset with random access, resumable at every step on any number of ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch.utils.data import IterableDataset

from gnomon.data._optional import load_library
from gnomon.data.batch_sampler import BatchRequest, GlobalBatchSampler
from gnomon.data.fetch import Collate, Fetch
from gnomon.errors import DataError, GnomonError


def create_loader(
    dataset: Any,
    *,
    global_batch: int,
    micro_batch: int,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    shuffle: bool = True,
    last: Literal["drop", "pad"] = "drop",
    num_workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
    pin_memory: bool = False,
    prefetch_factor: int = 2,
) -> ResumableLoader:
    """Return the micro-batches of this rank; see `GlobalBatchSampler` for which samples they hold.

    `dataset` has `__len__` and `__getitem__`; `num_workers` processes read ahead, each `prefetch_factor` batches.
    With last="pad" every batch is a `PaddedBatch`. Raises DataError for settings that make no batches, and for a
    dataset without random access.
    """
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"{type(dataset).__name__} has no random access (`__len__` and `__getitem__`), and a position in it would "
            "depend on the number of ranks. Give a map-style dataset; gnomon.data.webdataset reads tar shards as one."
        )
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise DataError(f"num_workers={num_workers!r}; set it to 0 or more processes.")
    sampler = GlobalBatchSampler(
        len(dataset),
        global_batch,
        micro_batch,
        rank=rank,
        world_size=world_size,
        seed=seed,
        shuffle=shuffle,
        last=last,
    )
    options = {"num_workers": num_workers, "pin_memory": pin_memory}
    if num_workers:
        options |= {"prefetch_factor": prefetch_factor, "persistent_workers": True}
    return ResumableLoader(Fetch(dataset, seed), sampler, Collate(collate, last == "pad"), options)


class ResumableLoader:
    """One epoch per iteration: `iter` goes on where the last one was left, and after the last batch begins the next.

    The state counts the batches that were taken, not those that workers fetched ahead; it is the same on every rank,
    and any number of ranks can continue from it. Make one with `create_loader`.
    """

    def __init__(self, fetch: Fetch, sampler: GlobalBatchSampler, collate: Collate, options: dict[str, Any]) -> None:
        self.sampler = sampler
        self._taken = 0
        self._iteration: object = None
        library = load_library("torchdata.stateful_dataloader", "A resumable loader")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it calls what this version of PyTorch deprecates
            self._engine = library.StatefulDataLoader(
                fetch,
                batch_sampler=_Requests(sampler),
                collate_fn=collate,
                generator=torch.Generator(),  # else each new iteration would draw from the model's generator
                snapshot_every_n_steps=2**62,  # the sampler's position says all; snapshots of workers cost time
                **options,
            )

    def __len__(self) -> int:
        """Return the micro-batches of this rank in a whole epoch."""
        return self.sampler.steps_per_epoch * self.sampler.accumulation

    def __iter__(self) -> Iterator[Any]:
        """Yield the rest of the epoch; raise DataError for what the dataset refuses or a worker that died."""
        self.load_state_dict(self.state_dict())
        self._iteration = mine = object()
        for batch in self._batches():
            if self._iteration is not mine:
                raise DataError("This iteration is over: the loader was begun anew or set to another position.")
            self._taken += 1
            yield batch
        if self._iteration is mine:
            self.load_state_dict(self.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return the position: {"epoch", "position", ...} with the position in samples of the global batch.

        Between two micro-batches of one optimizer step it is the start of that step.
        """
        return self.sampler.advance(self._taken // self.sampler.accumulation)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state, of any number of ranks; raise DataError if it belongs to other data."""
        self.sampler.load_state_dict(state)
        self._taken = 0
        self._iteration = None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        self.load_state_dict({**self.state_dict(), "epoch": epoch, "position": 0})

    def _batches(self) -> Iterator[Any]:
        try:
            for batch in self._engine:
                if isinstance(batch, GnomonError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise DataError(
                f"{str(error).splitlines()[0]} Most often the memory or /dev/shm was full: lower num_workers, "
                "prefetch_factor or the batch. With num_workers=0 an error of the dataset shows itself."
            ) from error


class _Requests:
    """What PyTorch takes for a batch sampler."""

    def __init__(self, sampler: GlobalBatchSampler) -> None:
        self._sampler = sampler

    def __iter__(self) -> Iterator[BatchRequest]:
        return self._sampler.requests()

    def __len__(self) -> int:
        return self._sampler.steps_per_epoch * self._sampler.accumulation
