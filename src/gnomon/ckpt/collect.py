"""Read the files of a checkpoint one after the other and gather what they hold."""

from __future__ import annotations

import json
import stat
from collections.abc import Container
from pathlib import Path
from typing import BinaryIO

from gnomon.ckpt.callables import describe, runs_something
from gnomon.ckpt.contents import FileEntry, TensorEntry, ValueEntry
from gnomon.ckpt.known_names import is_known
from gnomon.ckpt.mentions import Mentions
from gnomon.ckpt.printing import printable, shorten
from gnomon.ckpt.safetensors import MAX_HEADER_BYTES, read_safetensors
from gnomon.ckpt.tensors import LOAD_FROM_BYTES, StorageRecord
from gnomon.ckpt.torch_files import TAR_BLOCK_BYTES, ZIP_MAGIC, PickledFile, is_tar, read_stream, read_zip
from gnomon.ckpt.walk import Walker
from gnomon.errors import CheckpointError

MAX_JSON_BYTES = 64 * 2**20
_READS = "gnomon reads what torch.save writes (.pt, .pth, .bin, .ckpt), safetensors and folders of them"

Prefix = tuple[str, ...]


class UnknownFormatError(CheckpointError):
    """A file that does not start like any checkpoint."""


class Collector:
    """Gathers tensors, values, calls and notes of one or more files.

    `uncalled` holds the names of what would run something, but is only named.
    """

    def __init__(self) -> None:
        self.files: list[FileEntry] = []
        self.tensors: list[TensorEntry] = []
        self.values: list[ValueEntry] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.damage: list[str] = []
        self.unknown_calls: dict[str, int] = {}
        self.uncalled: dict[str, None] = {}

    def add_file(self, path: Path, name: str, prefix: Prefix = ()) -> None:
        """Read a file, whatever its format; raise CheckpointError that names it. Its entries begin with `prefix`."""
        with open_regular(path) as file:
            try:
                self._add(file, path, name, prefix)
            except UnknownFormatError:
                raise
            except CheckpointError as error:
                raise CheckpointError(f"'{path}' cannot be read as a checkpoint. {error}") from None

    def add_json(self, path: Path, name: str) -> None:
        """List what a JSON file says; raise CheckpointError when it is damaged."""
        with open_regular(path) as file:
            text = file.read(MAX_JSON_BYTES + 1)
        walker = Walker(name)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"'{path}' is damaged: it is not JSON ({error}).") from None
        walker.walk(document, (name,))
        self.values += walker.values
        self.files.append(file_entry(path, name, "JSON"))

    def _add(self, file: BinaryIO, path: Path, name: str, prefix: Prefix) -> None:
        kind = _kind(file, path)
        if kind == "safetensors":
            tensors, metadata = read_safetensors(file)
            walker = Walker(name)
            for key, tensor in tensors.items():
                walker.add_tensor((*prefix, key), tensor)
            if metadata:
                walker.walk(metadata, (*prefix, "__metadata__"))
        else:
            content = read_zip(file) if kind == "zip" else read_stream(file)
            kind = content.format
            walker = Walker(name, content.nested)
            walker.walk(content.root, prefix)
            self.add_mentions(content.mentions, content.opened)
            self._compare_storages(content, walker.storages, name)
        self.add_walker(walker)
        self.files.append(file_entry(path, name, kind))

    def add_walker(self, walker: Walker) -> None:
        """Take over what a walker listed."""
        self.tensors += walker.tensors
        self.values += walker.values

    def add_mentions(self, mentions: Mentions, opened: Container[int] = ()) -> None:
        """Warn of what loading would run and of pickles inside that are not in `opened`; count unknown calls."""
        unread = sum(id(call) not in opened for call in mentions.calls.get(LOAD_FROM_BYTES, ()))
        if unread:
            files = "a file" if unread == 1 else f"{unread} files"
            self._warn(f"load {files} inside it (which gnomon cannot read)")
        for name, count in mentions.num_calls.items():
            if runs_something(name):
                more = f", and {printable(name) or 'others like it'} {count - 1} more times" if count > 1 else ""
                self._warn(f"call {printable(describe(mentions.calls[name][0]))}{more}")
            elif not is_known(name):
                self.unknown_calls[printable(name)] = self.unknown_calls.get(printable(name), 0) + count
        for name, call in mentions.given.items():
            if not runs_something(call.name):  # else it was warned of above
                self._warn(f"let {printable(describe(call.function))} call {printable(shorten(name))}")
        for module in mentions.imported:
            self._warn(f"run {printable(shorten(module))} by importing it")
        told = mentions.num_calls.keys() | mentions.given.keys()
        self.uncalled |= {printable(shorten(name)): None for name in mentions.named if name not in told}

    def _warn(self, what: str) -> None:
        self.warnings.append(f"would {what} if loaded with pickle")

    def _compare_storages(self, content: PickledFile, storages: dict[str, StorageRecord], name: str) -> None:
        sizes = content.storage_bytes
        if sizes is None:
            return
        missing = [key for key, storage in storages.items() if sizes.get(key, -1) < storage.size_bytes]
        if missing:
            self.damage.append(
                f"The data of {len(missing)} of the {len(storages)} storages in '{printable(name)}' is "
                f"missing or too short; the first is data/{printable(missing[0])}."
            )


def open_regular(path: Path) -> BinaryIO:
    """Open a file; raise CheckpointError when it is missing, or a device or a pipe."""
    if not path.exists():
        raise CheckpointError(f"There is no '{path}'. Give a checkpoint: a file or a folder.")
    if not stat.S_ISREG(path.stat().st_mode):
        raise CheckpointError(f"'{path}' is not a regular file. Give a checkpoint: a file or a folder.")
    return path.open("rb")


def _kind(file: BinaryIO, path: Path) -> str:
    """Return 'zip', 'safetensors' or 'stream' by how a file begins; raise UnknownFormatError for anything else."""
    head = file.read(TAR_BLOCK_BYTES)
    if not head:
        raise UnknownFormatError(f"'{path}' is empty.")
    if path.suffix == ".distcp":
        raise UnknownFormatError(f"'{path}' is a part of a distributed checkpoint. Give its folder, '{path.parent}'.")
    if head.startswith(ZIP_MAGIC):
        return "zip"
    if is_tar(head):
        raise UnknownFormatError(
            f"'{path}' is a tar archive, the format of PyTorch before 0.2. Load it there and save it again."
        )
    if path.suffix == ".safetensors" or _looks_like_safetensors(head):
        return "safetensors"
    if head[0] == 0x80 and (len(head) < 2 or head[1] <= 5):  # the version of the protocol, in all since 2
        return "stream"
    raise UnknownFormatError(f"'{path}' is not a checkpoint: it starts with {head[:8]!r}. {_READS}.")


def _looks_like_safetensors(head: bytes) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def file_entry(path: Path, name: str, kind: str) -> FileEntry:
    """Return a file with its size on the disk."""
    return FileEntry(path=printable(name), format=kind, bytes=path.stat().st_size)
