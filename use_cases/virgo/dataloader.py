"""Segments of witnesses and strain as a step of a pipeline, made anew or kept in HDF5 files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from observation import observe
from torch.utils.data import TensorDataset

from gnomon.component import DataGetter
from gnomon.data.getters import HDF5Getter
from gnomon.errors import DataError

ARRAYS = ("witnesses", "strain")
PARTS = ("train", "validation", "test")


class StrainGetter(DataGetter):
    """Makes synthetic observations and returns datasets of (witnesses (3, samples), whitened strain (samples,)).

    With `folder`, each part is written to <folder>/<part>.h5 once, and read from there as it is needed. Raises
    DataError for a file of other settings.
    """

    def __init__(
        self, train: int = 256, validation: int = 32, test: int = 64, seed: int = 0, folder: str | None = None
    ) -> None:
        self.segments = (train, validation, test)
        self.seed = seed
        self.folder = None if folder is None else Path(folder)

    def execute(self) -> tuple[Any, Any, Any]:
        """Return the train, validation and test parts, each from a stretch of its own."""
        parts = [self._part(index) for index in range(len(PARTS))]
        return parts[0], parts[1], parts[2]

    def _part(self, index: int) -> Any:
        if self.folder is None:
            return TensorDataset(*(torch.from_numpy(array) for array in self._make(index).values()))
        path = self.folder / f"{PARTS[index]}.h5"
        settings = {"segments": self.segments[index], "seed": self.seed}
        if path.exists():
            _check_settings(path, settings)
        else:
            _write(path, self._make(index), settings)
        return HDF5Getter(str(path), list(ARRAYS), as_tuple=True).execute()

    def _make(self, index: int) -> dict[str, np.ndarray]:
        observation = observe(self.segments[index], (self.seed, index))
        return {name: np.ascontiguousarray(getattr(observation, name), dtype=np.float32) for name in ARRAYS}


def _write(path: Path, arrays: dict[str, np.ndarray], settings: dict[str, int]) -> None:
    """Write a file that is complete or not there at all, also where several ranks do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    with h5py.File(partial, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.attrs.update(settings)
    partial.replace(path)


def _check_settings(path: Path, settings: dict[str, int]) -> None:
    try:
        with h5py.File(path) as file:
            found = {name: int(file.attrs.get(name, -1)) for name in settings}
    except OSError as error:
        raise DataError(f"'{path}' cannot be read as an HDF5 file: {error}. Remove it, to have it made anew.") from None
    if found != settings:
        raise DataError(f"'{path}' was made with {found}, and {settings} is wanted. Remove it, or set another folder.")
