"""The IDX format of the MNIST files: arrays of any rank, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gnomon.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Big-endian NumPy types by the code in the third byte of the file."""
MAX_BYTES = 2**36  # a header of a few bytes may not ask for more memory than any such data set has


def read_idx(path: str | Path) -> NDArray[Any]:
    """Return the array in an IDX file, in the machine's byte order; gzip is recognised by its first bytes.

    Raises DataError when the file is missing, is something else, or is shorter or longer than its header says.
    """
    path = Path(path).expanduser()
    try:
        with path.open("rb") as file:
            is_compressed = file.read(2) == GZIP_MAGIC
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            return _read(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{path}' is cut off or damaged: {error}. Copy or download it again.") from None
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error.strerror or error}. Check the path.") from None


def _read(file: BinaryIO | gzip.GzipFile, path: Path) -> NDArray[Any]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or magic[3] == 0:
        raise DataError(
            f"'{path}' is not an IDX file: it starts with the bytes '{magic.hex(' ')}', where '00 00', one of "
            f"{', '.join(f'{code:02x}' for code in DTYPES)} (the type) and the number of dimensions should be. "
            "Give a file such as train-images-idx3-ubyte."
        )
    dtype, rank = np.dtype(DTYPES[magic[2]]), magic[3]
    sizes = file.read(4 * rank)
    if len(sizes) < 4 * rank:
        raise DataError(f"'{path}' is cut off within its header of {4 + 4 * rank} bytes. Copy or download it again.")
    shape = tuple(np.frombuffer(sizes, dtype=">u4").tolist())
    needed = math.prod(shape) * dtype.itemsize
    if needed > MAX_BYTES:
        raise DataError(f"'{path}' is damaged: its header asks for {needed} bytes, shape {shape}.")
    data = file.read(needed + 1)  # one more shows whether anything follows
    if len(data) != needed:
        found = f"only {len(data)} follow" if len(data) < needed else "more follow"
        raise DataError(
            f"'{path}' is cut off or damaged: its header says shape {shape}, which takes {needed} bytes, "
            f"but {found}. Copy or download it again."
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape).astype(dtype.newbyteorder("="))
