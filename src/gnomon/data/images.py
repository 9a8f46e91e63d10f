"""Labelled images in memory: MNIST-format files that the user has, and scikit-learn's handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from gnomon.data._optional import load_library
from gnomon.data.idx import read_idx
from gnomon.errors import DataError, did_you_mean

Split = Literal["train", "test"]
MNIST_FILES = {"train": "train", "test": "t10k"}


class LabelledImages(Dataset[tuple[Tensor, Tensor]]):
    """Images (num_samples, height, width) or (num_samples, channels, height, width), and one label each.

    A sample is (image, label): float32 (channels, size, size), which is the stored value over `largest`, so from 0 to
    1; and an int64 scalar. `size` resizes each image to a square of so many pixels (bilinear), None leaves it.
    """

    draws_random_numbers = False

    def __init__(
        self, images: NDArray[Any], labels: NDArray[Any], *, largest: float = 255.0, size: int | None = None
    ) -> None:
        if images.ndim not in (3, 4):
            raise DataError(f"The images have shape {images.shape}; (samples, height, width) is needed.")
        if labels.shape != images.shape[:1]:
            raise DataError(f"{len(images)} images come with labels of shape {labels.shape}; one per image is needed.")
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(f"The labels are {labels.dtype}; whole numbers are needed.")
        if size is not None and size < 1:
            raise DataError(f"size={size}; set it to a number of pixels, such as 28, or to null.")
        self._images = torch.from_numpy(np.ascontiguousarray(images if images.ndim == 4 else images[:, None]))
        self.labels = torch.from_numpy(labels.astype(np.int64))
        self._largest = largest
        self._size = size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Return the samples at `indices`."""
        chosen = torch.tensor(indices)
        images = self._images[chosen].float() / self._largest
        if self._size is not None and images.shape[-2:] != (self._size, self._size):
            images = torch.nn.functional.interpolate(
                images, size=(self._size, self._size), mode="bilinear", antialias=True
            )
        return list(zip(images, self.labels[chosen], strict=True))

    @property
    def num_classes(self) -> int:
        """One more than the largest label."""
        return int(self.labels.max()) + 1


class IdxDataset(LabelledImages):
    """Images and labels from two IDX files, plain or gzip; raises DataError when they do not fit together."""

    def __init__(self, images: str | Path, labels: str | Path, *, size: int | None = None) -> None:
        pixels, classes = read_idx(images), read_idx(labels)
        if pixels.ndim != 3 or pixels.dtype != np.uint8:
            raise DataError(
                f"'{images}' holds {pixels.dtype} of shape {pixels.shape}; images are uint8 (samples, height, width). "
                "Give a file such as train-images-idx3-ubyte."
            )
        if classes.ndim != 1 or classes.dtype != np.uint8:
            raise DataError(
                f"'{labels}' holds {classes.dtype} of shape {classes.shape}; labels are uint8 (samples). "
                "Give a file such as train-labels-idx1-ubyte."
            )
        if len(pixels) != len(classes):
            raise DataError(f"'{images}' has {len(pixels)} images, but '{labels}' has {len(classes)} labels.")
        super().__init__(pixels, classes, size=size)


class MNIST(IdxDataset):
    """The train or test part of MNIST, or of a set in its format, from a folder; nothing is downloaded.

    The folder, or its subfolders `raw` and `MNIST/raw`, holds the four files under their usual names, plain or .gz.
    """

    def __init__(self, root: str | Path, split: Split = "train", *, size: int | None = None) -> None:
        _check_split(split)
        folder, prefix = Path(root).expanduser(), MNIST_FILES[split]
        super().__init__(
            _find(folder, f"{prefix}-images", "idx3-ubyte"), _find(folder, f"{prefix}-labels", "idx1-ubyte"), size=size
        )


class Digits(LabelledImages):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, which come with the library: real data, no download.

    `test_fraction` of each class, drawn from `seed`, is the test part; the rest is the train part.
    """

    def __init__(
        self, split: Split = "train", *, size: int | None = None, test_fraction: float = 0.2, seed: int = 0
    ) -> None:
        _check_split(split)
        if not 0.0 < test_fraction < 1.0:
            raise DataError(f"test_fraction={test_fraction}; set it between 0 and 1, such as 0.2.")
        digits = load_library("sklearn.datasets", "Digits").load_digits()
        chosen = _stratified(digits.target, test_fraction, seed)[split]
        super().__init__(digits.images[chosen].astype(np.uint8), digits.target[chosen], largest=16.0, size=size)


def _stratified(labels: NDArray[Any], test_fraction: float, seed: int) -> dict[str, NDArray[np.int64]]:
    """Return the sorted indices of both parts, with the same share of each class in them to the nearest sample."""
    test = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(label)])))
        test.append(generator.permutation(members)[: round(test_fraction * len(members))])
    indices = np.sort(np.concatenate(test))
    return {"train": np.setdiff1d(np.arange(len(labels)), indices), "test": indices}


def _check_split(split: str) -> None:
    if split not in MNIST_FILES:
        raise DataError(f"split='{split}' is unknown. {did_you_mean(split, MNIST_FILES)}")


def _find(root: Path, name: str, kind: str) -> Path:
    """Return the first file of the usual names in the usual folders."""
    folders = [root, root / "raw", root / "MNIST" / "raw"]
    names = [f"{name}{separator}{kind}{end}" for separator in "-." for end in ("", ".gz")]
    for folder in folders:
        for candidate in names:
            if (folder / candidate).is_file():
                return folder / candidate
    if not root.is_dir():
        raise DataError(f"root='{root}' is not a folder. Set it to the folder that holds {names[0]}.")
    present = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
    raise DataError(
        f"root='{root}' has no {names[0]} (or .gz), neither itself nor in raw/ or MNIST/raw/; it holds {present}. "
        "Copy the four MNIST files there: gnomon downloads nothing. Digits needs no files."
    )
