"""Split a dataset into parts for training, validation and testing."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnomon.component.base import Component
from gnomon.errors import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PARTS = ("train", "validation", "test")


class DataSplitter(Component):
    """Splits a dataset by proportions that are in [0, 1] and sum to 1; a part of proportion 0 is None."""

    def __init__(self, train: float, validation: float = 0.0, test: float = 0.0) -> None:
        self.proportions = (train, validation, test)
        for part, value in zip(PARTS, self.proportions, strict=True):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ConfigError(f"{part}={value!r} is not a proportion. Give a number from 0 to 1.")
        total = math.fsum(self.proportions)
        if not math.isclose(total, 1, abs_tol=1e-9):
            found = " + ".join(f"{value:g}" for value in self.proportions)
            raise ConfigError(
                f"The proportions train + validation + test are {found} = {total:g}; they must sum to 1. "
                f"With this validation and test, set train={1 - validation - test:.10g}."
                if validation + test <= 1
                else f"The proportions validation + test are {validation + test:g}, more than 1; they must sum to 1."
            )

    @abstractmethod
    def execute(self, dataset: Any) -> tuple[Any, Any, Any]:
        """Return the train, validation and test parts of the dataset."""

    def _split(self, dataset: Any, order: NDArray[Any]) -> tuple[Any, Any, Any]:
        parts, start = [], 0
        for stop, part, proportion in zip(self._stops(len(order)), PARTS, self.proportions, strict=True):
            if proportion and stop == start:
                raise DataError(
                    f"The dataset has {len(order)} samples, of which {part}={proportion:g} are none. "
                    f"Give more data, a larger proportion, or {part}=0 for no such part."
                )
            parts.append(_take(dataset, order[start:stop]) if proportion else None)
            start = stop
        return parts[0], parts[1], parts[2]

    def _stops(self, length: int) -> list[int]:
        """Return where each part ends: rounded sums, so that every sample is in exactly one part."""
        sums = [math.fsum(self.proportions[: index + 1]) for index in range(len(PARTS))]
        return [min(length, round(total * length)) for total in sums]


class RandomSplitter(DataSplitter):
    """Splits at random; the same seed and number of samples give the same parts on every machine.

    Takes arrays and data frames, sequences, datasets of torch (which become `Subset`s), and mappings of any of these.
    """

    def __init__(self, train: float, validation: float = 0.0, test: float = 0.0, seed: int = 0) -> None:
        super().__init__(train, validation, test)
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ConfigError(f"seed={seed!r}; give a whole number from 0.")
        self.seed = seed

    def execute(self, dataset: Any) -> tuple[Any, Any, Any]:
        """Return the three parts, each in random order; raise DataError for one without samples."""
        import numpy as np

        return self._split(dataset, np.random.default_rng(self.seed).permutation(_length(dataset)))


class OrderedSplitter(DataSplitter):
    """Splits in the order of the dataset, so that of a time series the test part is the latest."""

    def execute(self, dataset: Any) -> tuple[Any, Any, Any]:
        """Return the three parts, each in the order of the dataset; raise DataError for one without samples."""
        import numpy as np

        return self._split(dataset, np.arange(_length(dataset)))


def _length(dataset: Any) -> int:
    if not isinstance(dataset, Mapping):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DataError(
                f"A {type(dataset).__name__} has no length or no samples by number, so it cannot be split by "
                "proportions. Split it where it is made, or derive a splitter of your own from DataSplitter."
            )
        return len(dataset)
    lengths = {key: _length(values) for key, values in dataset.items()}
    if len(set(lengths.values())) != 1:
        found = ", ".join(f"'{key}' has {length}" for key, length in lengths.items()) or "there is none"
        raise DataError(f"The arrays of the dataset need one and the same number of samples: {found}.")
    return next(iter(lengths.values()))


def _take(dataset: Any, indices: NDArray[Any]) -> Any:
    """Return the samples at `indices`, in the kind of container that they came in."""
    torch_data = sys.modules.get("torch.utils.data")  # whoever has a dataset of torch has imported it
    if torch_data is not None and isinstance(dataset, torch_data.Dataset):
        return torch_data.Subset(dataset, indices.tolist())
    if isinstance(dataset, Mapping):
        return {key: _take(values, indices) for key, values in dataset.items()}
    if hasattr(dataset, "iloc"):  # pandas
        return dataset.iloc[indices]
    if isinstance(dataset, Sequence):
        return [dataset[index] for index in indices.tolist()]
    return dataset[indices]
