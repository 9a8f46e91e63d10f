"""The binary version of CIFAR-10 (cifar-10-batches-bin). The version for Python is a pickle, which could run code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gnomon.errors import DataError

SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
"""A label, then the red, green and blue planes, row by row."""
FOLDER = "cifar-10-batches-bin"
FILES = {"train": [f"data_batch_{index}.bin" for index in range(1, 6)], "test": ["test_batch.bin"]}


def read_part(root: str | Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images (count, 3, 32, 32) and labels (count,) of `train` or `test`.

    `root` is the folder of the files, or the one that holds cifar-10-batches-bin. Raises DataError for files that are
    missing, cut off or of another format.
    """
    folder = Path(root).expanduser()
    folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
    if (folder / "data_batch_1").is_file() or (folder / "cifar-10-batches-py").is_dir():
        raise DataError(
            f"root='{root}' holds the Python version of CIFAR-10, which is a pickle and could run code. "
            "Download the binary version, cifar-10-binary.tar.gz, instead."
        )
    records = np.concatenate([_read_file(folder / name) for name in FILES[part]])
    return records[:, 1:].reshape(-1, *SHAPE), records[:, 0].astype(np.int64)


def _read_file(path: Path) -> NDArray[np.uint8]:
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(
            f"'{path}' cannot be read: {error.strerror}. Set data.root to the folder {FOLDER}; nothing is downloaded."
        ) from None
    if not len(content) or len(content) % RECORD_BYTES:
        raise DataError(
            f"'{path}' has {len(content)} bytes, which is no multiple of {RECORD_BYTES}, the size of a record. "
            "It is cut off or not a file of the binary version; copy it again."
        )
    records = content.reshape(-1, RECORD_BYTES)
    if (largest := int(records[:, 0].max())) > 9:
        raise DataError(f"'{path}' has the label {largest}; CIFAR-10 has labels from 0 to 9.")
    return records
