"""Datasets as steps of a pipeline. What a getter is told is what the dataset of that name is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gnomon.component import DataGetter
from gnomon.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from gnomon.data._samples import Keys

PARTS = ("train", "test")


class _ImagesGetter(DataGetter):
    """Returns the `parts` of a set that has a train and a test part: one dataset, or a tuple of both in that order."""

    def __init__(self, parts: Sequence[str], size: int | None) -> None:
        self.parts = [parts] if isinstance(parts, str) else list(parts)
        self.size = size
        if not self.parts:
            raise DataError("parts is empty; give train, test or [train, test].")
        for part in self.parts:
            if part not in PARTS:
                raise DataError(f"parts names '{part}'. {did_you_mean(part, PARTS)}")

    def _get(self, make: Any) -> Any:
        found = [make(part) for part in self.parts]
        return found[0] if len(found) == 1 else tuple(found)


class DigitsGetter(_ImagesGetter):
    """Gets scikit-learn's handwritten digits; see `gnomon.data.images.Digits`."""

    def __init__(
        self, parts: Sequence[str] = PARTS, size: int | None = None, test_fraction: float = 0.2, seed: int = 0
    ) -> None:
        super().__init__(parts, size)
        self.test_fraction = test_fraction
        self.seed = seed

    def execute(self) -> Any:
        """Return the parts; raise DataError without scikit-learn."""
        from gnomon.data.images import Digits

        return self._get(
            lambda part: Digits(part, size=self.size, test_fraction=self.test_fraction, seed=self.seed),
        )


class MNISTGetter(_ImagesGetter):
    """Gets MNIST, or a set in its format, from the folder `root`; see `gnomon.data.images.MNIST`."""

    def __init__(self, root: str, parts: Sequence[str] = PARTS, size: int | None = None) -> None:
        super().__init__(parts, size)
        self.root = root

    def execute(self) -> Any:
        """Return the parts; raise DataError for files that are missing or damaged."""
        from gnomon.data.images import MNIST

        return self._get(lambda part: MNIST(self.root, part, size=self.size))


class _StoredGetter(DataGetter):
    """Gets arrays from files; a pattern or a list of several joins their samples in order of name."""

    def __init__(self, path: str | Sequence[str], keys: Keys, as_tuple: bool = False, ids: str | None = None) -> None:
        self.path = path
        self.keys = keys
        self.as_tuple = as_tuple
        self.ids = ids

    def _get(self, make: Any) -> Dataset[Any]:
        from torch.utils.data import ConcatDataset

        from gnomon.data._samples import expand_paths

        parts = [make(path, self.keys, as_tuple=self.as_tuple, ids=self.ids) for path in expand_paths(self.path)]
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)


class HDF5Getter(_StoredGetter):
    """Gets samples from HDF5 files; see `gnomon.data.stored_arrays.HDF5Dataset`."""

    def execute(self) -> Dataset[Any]:
        """Return the dataset; raise DataError for files or arrays that are missing or damaged."""
        from gnomon.data.stored_arrays import HDF5Dataset

        return self._get(HDF5Dataset)


class ZarrGetter(_StoredGetter):
    """Gets samples from Zarr groups; see `gnomon.data.stored_arrays.ZarrDataset`."""

    def execute(self) -> Dataset[Any]:
        """Return the dataset; raise DataError for groups or arrays that are missing or damaged."""
        from gnomon.data.stored_arrays import ZarrDataset

        return self._get(ZarrDataset)


class ParquetGetter(DataGetter):
    """Gets rows from Parquet files; see `gnomon.data.parquet.ParquetDataset`."""

    def __init__(
        self, path: str | Sequence[str], columns: Keys, as_tuple: bool = False, ids: str | None = None
    ) -> None:
        self.path = path
        self.columns = columns
        self.as_tuple = as_tuple
        self.ids = ids

    def execute(self) -> Dataset[Any]:
        """Return the dataset; raise DataError for files or columns that are missing or damaged."""
        from gnomon.data.parquet import ParquetDataset

        return ParquetDataset(self.path, self.columns, as_tuple=self.as_tuple, ids=self.ids)


class WebDatasetGetter(DataGetter):
    """Gets samples from tar shards; see `gnomon.data.webdataset.WebDataset`."""

    def __init__(self, path: str | Sequence[str], keys: Keys, as_tuple: bool = False, grayscale: bool = False) -> None:
        self.path = path
        self.keys = keys
        self.as_tuple = as_tuple
        self.grayscale = grayscale

    def execute(self) -> Dataset[Any]:
        """Return the dataset; raise DataError for shards or files in them that are missing or damaged."""
        from gnomon.data.webdataset import WebDataset

        return WebDataset(self.path, self.keys, as_tuple=self.as_tuple, grayscale=self.grayscale)
