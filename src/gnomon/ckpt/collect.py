"""Read the files of a checkpoint one after the other and gather what they hold."""

from __future__ import annotations

import json
import stat
from collections.abc import Container
from pathlib import Path
from typing import Any, BinaryIO

from gnomon.ckpt.callables import describe, is_known, runs_something
from gnomon.ckpt.contents import FileEntry, TensorEntry, ValueEntry
from gnomon.ckpt.distributed import Place, read_metadata
from gnomon.ckpt.inert import Call
from gnomon.ckpt.pickle_machine import PickleMachine
from gnomon.ckpt.printing import printable
from gnomon.ckpt.safetensors import MAX_HEADER_BYTES, read_safetensors
from gnomon.ckpt.tensors import LOAD_FROM_BYTES, StorageRecord
from gnomon.ckpt.torch_files import TAR_BLOCK_BYTES, ZIP_MAGIC, PickledFile, is_tar, read_stream, read_zip
from gnomon.ckpt.walk import Walker
from gnomon.errors import CheckpointError

METADATA_FILE = ".metadata"
MAX_JSON_BYTES = 64 * 2**20
_READS = "gnomon reads what torch.save writes (.pt, .pth, .bin, .ckpt), safetensors and folders of them"

Prefix = tuple[str, ...]


class UnknownFormatError(CheckpointError):
    """A file that does not start like any checkpoint."""


class Collector:
    """Gathers tensors, values, calls and notes of one or more files."""

    def __init__(self) -> None:
        self.files: list[FileEntry] = []
        self.tensors: list[TensorEntry] = []
        self.values: list[ValueEntry] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.damage: list[str] = []
        self.unknown_calls: dict[str, int] = {}

    def add_file(self, path: Path, name: str, prefix: Prefix = ()) -> None:
        """Read a file, whatever its format; raise CheckpointError that names it. Its entries begin with `prefix`."""
        with _open(path) as file:
            try:
                self._add(file, path, name, prefix)
            except UnknownFormatError:
                raise
            except CheckpointError as error:
                raise CheckpointError(f"'{path}' cannot be read as a checkpoint. {error}") from None

    def add_distributed(self, folder: Path) -> None:
        """Read the `.metadata` of a folder and compare it with the files beside it; raise CheckpointError."""
        path = folder / METADATA_FILE
        with _open(path) as file:
            try:
                content = read_metadata(file)
            except CheckpointError as error:
                raise CheckpointError(f"'{path}' cannot be read as a checkpoint. {error}") from None
        walker = Walker(METADATA_FILE)
        for place, tensor in content.tensors.items():
            walker.add_tensor(place, tensor)
        self._add_calls(content.num_calls, content.calls)
        objects = PickleMachine()  # one for all, so that they share its limits
        walkers = [walker, *(self._walk_object(folder, *item, objects) for item in content.objects.items())]
        self._add_calls(objects.num_calls, objects.calls, objects.opened)
        self.tensors += [tensor for walker in walkers for tensor in walker.tensors]
        self.values += [value for walker in walkers for value in walker.values]
        self.files.append(_file_entry(path, METADATA_FILE, "table of contents"))
        for name, needed in sorted(content.file_bytes.items()):
            self._add_data_file(folder / name, name, needed)

    def add_json(self, path: Path, name: str) -> None:
        """List what a JSON file says; raise CheckpointError when it is damaged."""
        with _open(path) as file:
            text = file.read(MAX_JSON_BYTES + 1)
        walker = Walker(name)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"'{path}' is damaged: it is not JSON ({error}).") from None
        walker.walk(document, (name,))
        self.values += walker.values
        self.files.append(_file_entry(path, name, "JSON"))

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
            self._add_calls(content.num_calls, content.calls, content.opened)
            self._compare_storages(content, walker.storages, name)
        self.tensors += walker.tensors
        self.values += walker.values
        self.files.append(_file_entry(path, name, kind))

    def _walk_object(self, folder: Path, path: Prefix, where: Place | None, machine: PickleMachine) -> Walker:
        """List an object that `torch.save` put into a data file; when that cannot be read, the object's name alone."""
        data = None if where is None else folder / where.file
        if where is None or data is None or not data.is_file():
            walker = Walker(METADATA_FILE)
            walker.add_value(path, "object")
            return walker
        walker = Walker(f"{where.file}@{where.offset}")
        with _open(data) as file:
            try:
                root = read_zip(file, where.offset, where.length, machine).root
            except CheckpointError:
                walker.add_value(path, "object", f"<{where.length} bytes>")
                return walker
        walker.walk(root, path)
        return walker

    def _add_data_file(self, path: Path, name: str, needed: int) -> None:
        if not path.is_file():
            self.damage.append(f"The data file '{printable(name)}' is missing; its tensors cannot be loaded.")
            return
        entry = _file_entry(path, name, "data")
        if entry.bytes < needed:
            self.damage.append(
                f"The data file '{printable(name)}' is cut off: it should have at least {needed} bytes and has "
                f"{entry.bytes}."
            )
        self.files.append(entry)

    def _add_calls(self, num_calls: dict[str, int], calls: dict[str, list[Call]], opened: Container[int] = ()) -> None:
        """Warn of calls that run something and of pickles inside that are not in `opened`; count unknown calls."""
        unread = sum(id(call) not in opened for call in calls.get(LOAD_FROM_BYTES, ()))
        if unread:
            files = "a file" if unread == 1 else f"{unread} files"
            self.warnings.append(f"would load {files} inside it (which gnomon cannot read) if loaded with pickle")
        for name, count in num_calls.items():
            if runs_something(name):
                more = f", and {printable(name) or 'others like it'} {count - 1} more times" if count > 1 else ""
                self.warnings.append(f"would call {printable(describe(calls[name][0]))}{more} if loaded with pickle")
            elif not is_known(name):
                self.unknown_calls[printable(name)] = self.unknown_calls.get(printable(name), 0) + count

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


def _open(path: Path) -> BinaryIO:
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


def _file_entry(path: Path, name: str, kind: str) -> FileEntry:
    return FileEntry(path=printable(name), format=kind, bytes=path.stat().st_size)


def parse_index(path: Path) -> dict[str, str]:
    """Return {tensor: file} of an index of shards; raise CheckpointError unless all its files lie beside it."""
    with _open(path) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    try:
        document: Any = json.loads(text)
        shards = {str(name): str(shard) for name, shard in document["weight_map"].items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"'{path}' is not an index of shards: it has no mapping 'weight_map'.") from None
    foreign = sorted({shard for shard in shards.values() if Path(shard).name != shard})
    if foreign:
        raise CheckpointError(f"'{path}' names '{printable(foreign[0])}', which is not a file beside it.")
    missing = sorted({shard for shard in shards.values() if not (path.parent / shard).is_file()})
    if missing:
        listed = ", ".join(f"'{printable(shard)}'" for shard in missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise CheckpointError(
            f"'{path}' names {len(set(shards.values()))} files, of which {len(missing)} are missing: {listed}. "
            "Copy or download them."
        )
    return shards
