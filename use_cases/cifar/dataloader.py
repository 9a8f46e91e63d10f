"""Small colour pictures of 10 classes as a step of a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from cifar_files import read_part
from numpy.typing import NDArray
from textures import draw
from torch import Tensor

from gnomon.component import DataGetter
from gnomon.data.images import LabelledImages
from gnomon.errors import ConfigError, did_you_mean

SOURCES = ("textures", "cifar")


class FlippedImages(LabelledImages):
    """Labelled images of which each is mirrored with probability 1/2 whenever it is read."""

    draws_random_numbers = True

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the image and its label."""
        image, label = super().__getitem__(index)
        return (image.flip(-1) if torch.rand(()) < 0.5 else image), label


class PicturesGetter(DataGetter):
    """Gets (train, test) of `source`: `textures`, drawn by formulas, or `cifar`, the user's binary files in `root`.

    `counts` and `noise` are for textures. Nothing is downloaded, and neither source stands in for the other. `flip`
    mirrors training pictures at random.
    """

    def __init__(
        self,
        source: str = "textures",
        root: str | None = None,
        counts: tuple[int, int] = (8000, 2000),
        noise: float = 0.1,
        flip: bool = False,
        seed: int = 0,
    ) -> None:
        if source not in SOURCES:
            raise ConfigError(f"data.source='{source}' is unknown. {did_you_mean(source, SOURCES)}")
        if source == "cifar" and root is None:
            raise ConfigError("data.source=cifar, but data.root is not set. Set it to the folder of the binary files.")
        if source == "textures" and root is not None:
            raise ConfigError(f"data.root='{root}', but data.source=textures reads no files. Set data.source=cifar.")
        self.root = root
        self.counts = counts
        self.noise = noise
        self.flip = flip
        self.seed = seed

    def execute(self) -> Any:
        """Return the train and the test part; raise DataError for files that are missing or damaged."""
        train = FlippedImages if self.flip else LabelledImages
        return train(*self._part(0)), LabelledImages(*self._part(1))

    def _part(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        if self.root is not None:
            return read_part(self.root, ("train", "test")[index])
        return draw(self.counts[index], self.noise, np.random.default_rng([self.seed, index]))
