"""Samples along the first axis of arrays in an HDF5 file or a Zarr store, read when they are asked for."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from gnomon.data._optional import load_library
from gnomon.data._samples import (
    Array,
    Keys,
    check_key,
    check_lengths,
    check_numeric,
    expand_paths,
    make_sample,
    read_keys,
    to_tensor,
)
from gnomon.errors import DataError


class StoredArrays(Dataset[Any]):
    """A sample is {name: tensor}, or a tuple of the tensors in the order of `keys`.

    `keys` lists arrays by their path in the file, or maps the name in the sample to it. `ids` is the path of an array
    with one text or number per sample, by which predictions are named. The file is looked at when the dataset is
    made, and then opened once in each process that reads samples.
    """

    draws_random_numbers = False
    kind: ClassVar[str]

    def __init__(self, path: str | Path, keys: Keys, *, as_tuple: bool = False, ids: str | None = None) -> None:
        self.path = Path(path).expanduser()
        self.keys = read_keys(keys, "keys")
        self.ids = ids
        self._as_tuple = as_tuple
        self._opened: tuple[int, Any, dict[str, Any]] | None = None
        with self._errors(), self._file() as file:
            self._length = self._check(file)

    @abstractmethod
    def _open(self) -> Any:
        """Return the open file."""

    @abstractmethod
    def _list(self, file: Any) -> dict[str, Any]:
        """Return the arrays of an open file by path."""

    @abstractmethod
    def _read(self, array: Any, indices: list[int]) -> Array:
        """Return entries along the first axis, in the order of `indices`."""

    def _close(self, file: Any) -> None:
        """Let go of an open file; a Zarr store needs nothing."""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """Return the samples at `indices`; raise DataError for data that cannot be read, IndexError as lists do."""
        places = [range(self._length)[index] for index in indices]
        with self._errors():
            arrays = self._arrays()
            columns = {name: self._read(arrays[key], places) for name, key in self.keys.items()}
        rows = range(len(places))
        return [make_sample({name: to_tensor(v[row]) for name, v in columns.items()}, self._as_tuple) for row in rows]

    def sample_ids(self, indices: Sequence[int]) -> list[Any] | None:
        """Return the ids of samples as texts or numbers, or None if `ids` was not given."""
        if self.ids is None:
            return None
        with self._errors():
            found = np.asarray(self._arrays()[self.ids][...])[list(indices)].tolist()
        return [value.decode() if isinstance(value, bytes) else value for value in found]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _arrays(self) -> dict[str, Any]:
        """Return the arrays by path, from a file that this very process has opened."""
        if self._opened is None or self._opened[0] != os.getpid():
            file = self._open()
            self._opened = (os.getpid(), file, self._list(file))
        return self._opened[2]

    @contextmanager
    def _file(self) -> Iterator[Any]:
        """Open the file for a moment: no process that is forked later may inherit it open."""
        if not self.path.exists():
            raise self._not_there()
        file = self._open()
        try:
            yield file
        finally:
            self._close(file)

    def _not_there(self) -> DataError:
        try:
            matches = expand_paths(self.path)
        except DataError:
            return DataError(f"'{self.path}' does not exist. Set path to {self.kind}.")
        reader = type(self).__name__
        return DataError(
            f"'{self.path}' is a pattern ({len(matches)} match, first '{matches[0]}'), and {reader} reads {self.kind} "
            f"alone. {reader.replace('Dataset', 'Getter')} takes patterns and joins the samples."
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DataError(
                f"'{self.path}' cannot be read as {self.kind}: {reason}. Check that it is complete and of that format."
            ) from None

    def _check(self, file: Any) -> int:
        arrays = self._list(file)
        where = f"'{self.path}'"
        for key in [*self.keys.values(), *([self.ids] if self.ids is not None else [])]:
            check_key(key, arrays, where)
            if not arrays[key].shape:
                raise DataError(f"'{key}' in {where} is a single value; an array with one entry per sample is needed.")
        for key in self.keys.values():
            check_numeric(np.dtype(arrays[key].dtype), f"'{key}' in {where}")
        used = [*self.keys.values(), *([self.ids] if self.ids is not None else [])]
        return check_lengths({key: arrays[key].shape[0] for key in used}, where)


class HDF5Dataset(StoredArrays):
    """Samples from one HDF5 file."""

    kind = "an HDF5 file"

    def _open(self) -> Any:
        return load_library("h5py", "HDF5Dataset").File(self.path, "r")

    def _close(self, file: Any) -> None:
        file.close()

    def _list(self, file: Any) -> dict[str, Any]:
        h5py = load_library("h5py", "HDF5Dataset")
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
        return found

    def _read(self, array: Any, indices: list[int]) -> Array:
        return np.stack([array[index] for index in indices])  # h5py takes longer to select many at once


class ZarrDataset(StoredArrays):
    """Samples from one Zarr group; a batch reads each chunk once."""

    kind = "a Zarr store"

    def _open(self) -> Any:
        zarr = load_library("zarr", "ZarrDataset")
        group = zarr.open(str(self.path), mode="r")
        if not isinstance(group, zarr.Group):
            raise DataError(f"'{self.path}' is one array. Set path to the group that holds it, and keys to its name.")
        return group

    def _list(self, file: Any) -> dict[str, Any]:
        return dict(_walk(file, ""))  # Zarr 3 itself refuses arrays that are stored as pickles

    def _read(self, array: Any, indices: list[int]) -> Array:
        unique, places = np.unique(indices, return_inverse=True)
        return np.asarray(array.oindex[unique])[places]


def _walk(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, array in group.arrays():
        yield prefix + name, array
    for name, inner in group.groups():
        yield from _walk(inner, f"{prefix}{name}/")
