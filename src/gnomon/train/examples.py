"""Inputs and targets by index, as NumPy arrays, for trainers of any framework."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gnomon.data.batch_sampler import BatchRequest
from gnomon.errors import DataError

Array = NDArray[Any]


class Examples:
    """A pair of arrays of equal length, or a dataset whose items are pairs (inputs, targets) that become arrays.

    Before each item of a dataset the generators of Python and NumPy are seeded from (seed, epoch, index), so that what
    it draws is the same for any number of ranks and after a resume. A dataset whose `draws_random_numbers` is False is
    spared that.
    """

    def __init__(self, data: Any, role: str, seed: int = 0) -> None:
        """Raise DataError, which names the data by their `role`, for anything else."""
        self._role = role
        self._seed = seed
        self._arrays: tuple[Array, Array] | None = None
        if _is_pair(data):
            self._arrays = (as_array(data[0]), as_array(data[1]))
            if len(self._arrays[0]) != len(self._arrays[1]):
                raise DataError(
                    f"The {role} data have {len(self._arrays[0])} inputs, but {len(self._arrays[1])} targets. "
                    "Give one target per input."
                )
        elif not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            raise DataError(
                f"The {role} data are a {type(data).__name__}, which has no random access (`__len__` and "
                "`__getitem__`). Give a pair of arrays (inputs, targets), or a dataset whose items are such pairs."
            )
        self._data = data
        if not len(self):
            raise DataError(f"The {role} data are empty. Check their path and their selection.")

    def __len__(self) -> int:
        return len(self._data if self._arrays is None else self._arrays[0])

    def take(self, request: BatchRequest) -> tuple[Array, Array]:
        """Return the inputs and targets of a batch; raise DataError where the items do not fit together."""
        if self._arrays is not None:
            return self._arrays[0][request.indices], self._arrays[1][request.indices]
        pairs = [self._pair(request.epoch, index) for index in request.indices]
        try:
            return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])
        except ValueError:
            shapes = sorted({str(pair[0].shape) for pair in pairs} | {str(pair[1].shape) for pair in pairs})
            raise DataError(
                f"The items of the {self._role} data do not make a batch: their shapes are {', '.join(shapes)}. "
                "Give all inputs one shape, and all targets one."
            ) from None

    def example(self) -> Array:
        """Return the first input."""
        first: Array = self.take(BatchRequest(epoch=0, indices=[0], num_real=1))[0][0]
        return first

    def _pair(self, epoch: int, index: int) -> tuple[Array, Array]:
        if getattr(self._data, "draws_random_numbers", True):
            with _seeded(self._seed, epoch, index):
                item = self._data[index]
        else:
            item = self._data[index]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise DataError(
                f"Item {index} of the {self._role} data is a {type(item).__name__}, not a pair (inputs, targets)."
            )
        return as_array(item[0]), as_array(item[1])


def as_array(value: Any) -> Array:
    """Return numbers as an array, floating-point ones in 32 bits at most; raise DataError for anything else."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"A {type(value).__name__} does not become an array: {error}.") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"A {type(value).__name__} becomes an array of {array.dtype}, not of numbers.")
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _is_pair(data: Any) -> bool:
    return isinstance(data, tuple) and len(data) == 2 and all(hasattr(part, "shape") for part in data)


@contextmanager
def _seeded(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed the generators as the loaders of gnomon.data do, and put them back afterwards."""
    words = np.random.SeedSequence([seed, epoch, index]).generate_state(2).tolist()
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(words[0])
    np.random.seed(words[1])
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
