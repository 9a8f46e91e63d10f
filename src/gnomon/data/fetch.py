"""Fetching one micro-batch, in a worker process or in the main one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, get_worker_info

from gnomon.data.batch_sampler import BatchRequest
from gnomon.errors import DataError, GnomonError


class PaddedBatch(NamedTuple):
    """A micro-batch of an epoch whose last batch is filled up."""

    samples: Any
    """What the collate function made of the samples."""
    valid: Tensor
    """bool (micro_batch,): False where a sample only fills the batch up and must not count."""
    indices: Tensor
    """int64 (micro_batch,): where each sample lies in the dataset."""


class Fetch(Dataset[Any]):
    """Answers a request with its samples, or with the GnomonError that they raised.

    Errors travel as values, because PyTorch would wrap those of a worker in a traceback. Before each sample the
    generators of Python, NumPy and PyTorch are seeded from (seed, epoch, index), so that what a dataset draws is the
    same for any number of workers and ranks and after a resume. A dataset whose `draws_random_numbers` is False is
    spared that, and asked for whole batches if it has `__getitems__`.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._is_random = _draws(dataset)

    def __getitems__(self, request: BatchRequest) -> tuple[BatchRequest, list[Any] | GnomonError]:
        """Return the request and its samples."""
        try:
            return request, self._fetch(request)
        except GnomonError as error:
            return request, error

    def _fetch(self, request: BatchRequest) -> list[Any]:
        if self._is_random:
            with _kept_generators():
                return [self._draw(request.epoch, index) for index in request.indices]
        if callable(fetch := getattr(self._dataset, "__getitems__", None)):
            return list(fetch(request.indices))
        return [self._dataset[index] for index in request.indices]

    def _draw(self, epoch: int, index: int) -> Any:
        words = np.random.SeedSequence([self._seed, epoch, index]).generate_state(3).tolist()
        random.seed(words[0])
        np.random.seed(words[1])
        torch.default_generator.manual_seed(words[2])
        return self._dataset[index]


class Collate:
    """Makes one batch of the samples of a request: `PaddedBatch` if `pads`, else what `collate` returns."""

    def __init__(self, collate: Callable[[list[Any]], Any] | None, pads: bool) -> None:
        self._collate = collate or _default_collate
        self._pads = pads

    def __call__(self, answer: tuple[BatchRequest, list[Any] | GnomonError]) -> Any:
        """Return the batch, or the GnomonError that there is instead."""
        request, samples = answer
        if isinstance(samples, GnomonError):
            return samples
        try:
            batch = self._collate(samples)
        except GnomonError as error:
            return error
        if not self._pads:
            return batch
        valid = torch.arange(len(request.indices)) < request.num_real
        return PaddedBatch(batch, valid, torch.tensor(request.indices))


def _default_collate(samples: list[Any]) -> Any:
    from torch.utils.data import default_collate

    try:
        return default_collate(samples)
    except (RuntimeError, TypeError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"The samples of a batch do not fit together: {reason}. Return tensors of one shape and one set of keys "
            "from the dataset, or give a `collate` function that pads them."
        ) from None


def _draws(dataset: Any) -> bool:
    """Return whether a sample may draw random numbers; True unless the dataset says no."""
    if isinstance(dataset, Subset):
        return _draws(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return any(map(_draws, dataset.datasets))
    return getattr(dataset, "draws_random_numbers", True)


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Put the generators back afterwards, so that loading data does not change what the model draws."""
    if get_worker_info() is not None:
        yield  # a worker draws for nothing else
        return
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(pytorch)
