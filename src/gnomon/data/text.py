"""Byte-level text: the bytes of real files are the tokens, so there is no vocabulary to train or to download."""

from __future__ import annotations

import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from gnomon.errors import DataError
from gnomon.spec import Noun

VOCAB_SIZE = 256
_NOT_TEXT_OF_THE_LIBRARY = ("site-packages", "dist-packages")

Bytes = NDArray[np.uint8]


class TextData(Noun):
    """Which text files to learn from."""

    root: str | None = Field(default=None, description="a folder or one file; default: Python's own standard library")
    pattern: str = Field(default="**/*.py", description="which files of a folder to read (a glob)")
    max_bytes: PositiveInt = Field(default=32 * 2**20, description="read this much at most, in order of path")
    validation_fraction: float = Field(default=0.1, ge=0.0, le=0.5, description="share that is never trained on")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if Path(self.pattern).is_absolute() or ".." in Path(self.pattern).parts or not self.pattern:
            raise ValueError(f"pattern='{self.pattern}' must be a glob below root, such as '**/*.txt'")
        return self


@dataclass(frozen=True, kw_only=True)
class ByteCorpus:
    """Tokens (uint8, one per byte) for training and for validation."""

    source: str
    num_files: int
    train: Bytes
    validation: Bytes

    @classmethod
    def read(cls, data: TextData) -> ByteCorpus:
        """Return the text of `data`, the same on every call; raise DataError when there is none."""
        root = Path(data.root).expanduser() if data.root is not None else Path(sysconfig.get_paths()["stdlib"])
        texts = _read_files(_find_files(root, data), root, data)
        train, validation = _split(texts, data.validation_fraction)
        return cls(source=str(root), num_files=len(texts), train=train, validation=validation)

    @property
    def checksum(self) -> int:
        """CRC-32 of all bytes, by which a resumed run recognises its text."""
        return zlib.crc32(self.validation.data, zlib.crc32(self.train.data))


def count_windows(tokens: Bytes, seq_len: int, needed: int, where: str) -> int:
    """Return the windows of `seq_len` tokens and their next token in `tokens`; raise DataError below `needed`."""
    found = max(0, (len(tokens) - 1) // seq_len)
    if found < needed:
        raise DataError(
            f"The {where} text has {len(tokens)} bytes, which make {found} sequences of seq_len={seq_len}, "
            f"but one batch takes {needed}. Give more text (data.root, data.max_bytes), "
            "or lower seq_len or the batch."
        )
    return found


def _find_files(root: Path, data: TextData) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise DataError(f"data.root='{root}' is neither a folder nor a file. Give a folder that holds text files.")
    files = [path for path in root.glob(data.pattern) if _is_text_of(path, root, data)]
    if not files:
        raise DataError(
            f"No file in '{root}' matches data.pattern='{data.pattern}'. "
            "Set data.root to a folder of text files and data.pattern to their names, such as '**/*.txt'."
        )
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


def _is_text_of(path: Path, root: Path, data: TextData) -> bool:
    if data.root is None and any(part in _NOT_TEXT_OF_THE_LIBRARY for part in path.relative_to(root).parts):
        return False
    return path.is_file()


def _read_files(files: list[Path], root: Path, data: TextData) -> list[bytes]:
    texts: list[bytes] = []
    room = data.max_bytes
    for path in files:
        if room == 0:
            break
        try:
            with path.open("rb") as file:
                text = file.read(room)
        except OSError as error:
            raise DataError(f"'{path}' cannot be read: {error.strerror}. Mend it, or change data.pattern.") from None
        if text:
            texts.append(text)
            room -= len(text)
    if not texts:
        raise DataError(f"The {len(files)} file(s) found in '{root}' are all empty. Give files that hold text.")
    return texts


def _split(texts: list[bytes], fraction: float) -> tuple[Bytes, Bytes]:
    """Every n-th file is for validation, so that both parts see all kinds of files; with few files, the tail is."""
    if fraction == 0.0:
        return _tokens(texts), _tokens([])
    every = round(1 / fraction)
    if len(texts) >= every:
        validation = texts[every - 1 :: every]
        del texts[every - 1 :: every]
        return _tokens(texts), _tokens(validation)
    tokens = _tokens(texts)
    cut = round(len(tokens) * (1 - fraction))
    return tokens[:cut], tokens[cut:]


def _tokens(texts: list[bytes]) -> Bytes:
    return np.frombuffer(b"".join(texts), dtype=np.uint8)
