"""WebDataset shards with random access: samples are found by an index of the tar files, made once."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from gnomon.data._optional import load_library
from gnomon.data._samples import Keys, check_key, check_numeric, expand_paths, make_sample, read_keys, to_tensor
from gnomon.errors import DataError

RUN_CODE = ("pkl", "pickle", "pyd", "pth")
"""Endings whose content is a pickle."""
IMAGES = ("png", "jpg", "jpeg", "bmp", "gif", "tif", "tiff", "pgm", "ppm", "webp")
_IMAGE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")


class _Member(NamedTuple):
    shard: int
    offset: int
    size: int


class WebDataset(Dataset[Any]):
    """A sample is {name: value}, or a tuple of the values in the order of `keys`.

    `keys` lists the file endings of a sample, such as ['png', 'cls'], or maps the name in the sample to the ending;
    samples may have others. The library webdataset decodes them: images to float32 (3, height, width) from 0 to 1, or
    (1, height, width) if `grayscale`; cls, id and index to int64; npy to its tensor; txt and json to what they hold.
    Endings that hold pickles are refused, because reading them could run code.

    `path` is a local tar file, a pattern such as 'train-*.tar' or 'train-{000..009}.tar', or a list; the shards must
    not be compressed. Every header is read when the dataset is made, and nothing is kept open.
    """

    draws_random_numbers = False

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        keys: Keys,
        *,
        as_tuple: bool = False,
        grayscale: bool = False,
    ) -> None:
        library = load_library("webdataset", "WebDataset")
        self.keys = read_keys(keys, "keys")
        for ending in self.keys.values():
            if ending.rpartition(".")[2].lower() in RUN_CODE:
                raise DataError(
                    f"keys asks for '{ending}', a pickle, and reading one could run code. Store npy or json."
                )
        self._as_tuple = as_tuple
        self._images = library.autodecode.imagehandler("torchl" if grayscale else "torchrgb", IMAGES)
        self._decode_other = library.autodecode.basichandlers
        self.shards = expand_paths(_expand_braces(path))
        self._ids: list[str] = []
        self._members: list[list[_Member]] = []
        for shard, name in enumerate(self.shards):
            self._index(shard, name)
        if not self._ids:
            raise DataError(f"'{self.shards[0]}' holds no samples: files named like 000001.png and 000001.cls.")

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Any:
        place = range(len(self._ids))[index]
        pairs = zip(self.keys.items(), self._members[place], strict=True)
        values = {name: self._decode(ending, member, self._ids[place]) for (name, ending), member in pairs}
        return make_sample(values, self._as_tuple)

    def sample_ids(self, indices: Sequence[int]) -> list[str]:
        """Return the names of samples, which are their file names without the endings."""
        return [self._ids[index] for index in indices]

    def _index(self, shard: int, path: Path) -> None:
        """Note where each wanted file of each sample lies."""
        for key, members in _samples(shard, path):
            for ending in self.keys.values():
                check_key(ending, members, f"Sample '{key}' in '{path}'")
            self._ids.append(key)
            self._members.append([members[ending] for ending in self.keys.values()])

    def _decode(self, ending: str, member: _Member, key: str) -> Any:
        path = self.shards[member.shard]
        where = f"'{ending}' of sample '{key}' in '{path}'"
        try:
            with path.open("rb") as file:
                file.seek(member.offset)
                data = file.read(member.size)
            if ending.rpartition(".")[2].lower() in IMAGES:
                return self._decode_image(ending, data)
            value = self._decode_other(ending, data)
        except Exception as error:  # every decoder has errors of its own
            raise DataError(f"{where} cannot be decoded: {type(error).__name__}: {error}.") from None
        if value is None:
            raise DataError(f"{where} has an ending that nothing decodes. Use png, jpg, cls, txt, json or npy.")
        if isinstance(value, np.ndarray):
            check_numeric(value.dtype, where)
            return to_tensor(value)
        return torch.tensor(value) if isinstance(value, int) else value

    def _decode_image(self, ending: str, data: bytes) -> torch.Tensor:
        image = load_library("PIL.Image", "An image of a WebDataset")
        # Pillow goes by the content, and would hand PostScript named .png to another program
        image.open(io.BytesIO(data), formats=_IMAGE_FORMATS).close()
        value = self._images(ending, data)
        return value if value.ndim == 3 else value[None]


def _expand_braces(path: str | Path | Sequence[str | Path]) -> list[str | Path]:
    expand = load_library("braceexpand", "WebDataset").braceexpand
    listed = [path] if isinstance(path, str | Path) else list(path)
    for item in listed:
        if "://" in str(item) or str(item).startswith("pipe:"):
            raise DataError(f"'{item}' is not a local file, and only those have random access. Copy the shards first.")
    return [name for item in listed for name in expand(str(item))]


def _samples(shard: int, path: Path) -> Iterator[tuple[str, dict[str, _Member]]]:
    """Yield (name, {ending: place}) of each run of files with one name, in the order of the shard."""
    split = load_library("webdataset.tariterators", "WebDataset").base_plus_ext
    current, members = None, dict[str, _Member]()
    for member in _files(path):
        key, ending = split(member.name)
        if key is None:
            continue
        if key != current and current is not None:
            yield current, members
        if key != current:
            current, members = key, {}
        if ending in members:
            raise DataError(f"'{path}' holds '{member.name}' twice for one sample. Write the shard again.")
        members[ending] = _Member(shard, member.offset_data, member.size)
    if current is not None:
        yield current, members


def _files(path: Path) -> Iterator[tarfile.TarInfo]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            last = None
            for last in archive:
                if last.offset_data + last.size > size:
                    raise DataError(f"'{path}' is cut off within '{last.name}'. Copy or download it again.")
                if last.isreg():
                    yield last
            file.seek(archive.offset)
            _check_end(file.read(tarfile.BLOCKSIZE), path, last)
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"'{path}' cannot be read as a tar file: {error}. Shards must be complete and not compressed (gunzip them)."
        ) from None


def _check_end(block: bytes, path: Path, last: tarfile.TarInfo | None) -> None:
    """Raise DataError unless a block of zeros follows the last member: tarfile also stops where a file is cut off."""
    if block == tarfile.NUL * tarfile.BLOCKSIZE:
        return
    how = "is damaged" if len(block) == tarfile.BLOCKSIZE else "is cut off"
    where = "at its start" if last is None else f"after '{last.name}'"
    raise DataError(f"'{path}' {how} {where}: the end mark of a tar file is not there. Copy or download it again.")
