"""Handwritten digits as a step of a pipeline: the user's MNIST files, or the digits that come with scikit-learn."""

from __future__ import annotations

from typing import Any

from gnomon.component import DataGetter
from gnomon.data.getters import DigitsGetter, MNISTGetter
from gnomon.errors import ConfigError, did_you_mean

SOURCES = ("digits", "mnist")


class ImagesGetter(DataGetter):
    """Gets (train, test) of `source`: `digits` (1,797 real images of 8 x 8) or `mnist` (IDX files in `root`).

    Nothing is downloaded, and neither source stands in for the other. `size` resizes to so many pixels a side.
    """

    def __init__(self, source: str = "digits", root: str | None = None, size: int | None = None) -> None:
        if source not in SOURCES:
            raise ConfigError(f"data.source='{source}' is unknown. {did_you_mean(source, SOURCES)}")
        if source == "mnist" and root is None:
            raise ConfigError("data.source=mnist, but data.root is not set. Set it to the folder of the IDX files.")
        if source == "digits" and root is not None:
            raise ConfigError(f"data.root='{root}', but data.source=digits reads no files. Set data.source=mnist.")
        self._getter = DigitsGetter(size=size) if root is None else MNISTGetter(root, size=size)

    def execute(self) -> Any:
        """Return the train and the test part; raise DataError for files that are missing or damaged."""
        return self._getter.execute()
