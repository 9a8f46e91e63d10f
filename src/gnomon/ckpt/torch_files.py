"""Read what `torch.save` and `pickle.dump` write, up to the data of the tensors."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from gnomon.ckpt.bounded_file import BoundedFile
from gnomon.ckpt.inert import Call
from gnomon.ckpt.mentions import Mentions
from gnomon.ckpt.pickle_machine import MAX_PICKLE_BYTES, PickleMachine
from gnomon.ckpt.tensors import LOAD_FROM_BYTES, MAX_KEY, StorageRecord, as_storage
from gnomon.errors import CheckpointError

MAX_DIRECTORY_BYTES = 64 * 2**20
_MAX_INFLATION = 20  # times the bytes on the disk; PyTorch does not compress
_SMALL_BYTES = 2**20  # which may be compressed to any size
TAR_BLOCK_BYTES = 512
# the last records of a zip archive, up to where its directory begins
_END = struct.Struct("<16xL2x")
_LOCATOR = struct.Struct("<8xQ4x")
_END_64 = struct.Struct("<48xQ")
_LOCATOR_MAGIC = b"PK\x06\x07"
ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
)


@dataclass
class PickledFile:
    """The object in a file, what loading it would call and import, and the bytes of each storage where the file tells.

    `nested` holds the storages that were pickled inside the pickle, by the id of the call that loads them; `opened` the
    ids of all calls that load a file inside it that could be read.
    """

    format: str
    root: Any
    mentions: Mentions
    storage_bytes: dict[str, int] | None = None
    nested: dict[int, StorageRecord] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)


def read_zip(
    file: BinaryIO, start: int = 0, size_bytes: int | None = None, machine: PickleMachine | None = None
) -> PickledFile:
    """Read the zip format of PyTorch >= 1.6; raise CheckpointError when it is cut off, damaged or something else.

    `start` and `size_bytes` say where it lies inside a larger file.
    """
    machine = machine or PickleMachine()
    root, kind, sizes = _read_archive(
        BoundedFile(file, MAX_DIRECTORY_BYTES, "Its directory", start, size_bytes), machine
    )
    return _pickled(kind, root, machine, sizes)


def _read_archive(bounded: BoundedFile, machine: PickleMachine) -> tuple[Any, str, dict[str, int]]:
    """Return the object of a zip archive, what kind it is, and the bytes of each storage."""
    try:
        with zipfile.ZipFile(bounded) as archive:
            _check_directory(archive, bounded)
            table = _find_table(archive)
            prefix = table.filename.removesuffix("data.pkl")
            bounded.budget_bytes = MAX_PICKLE_BYTES
            content = _read_table(archive, table)
            names = archive.NameToInfo
            data = f"{prefix}data/"
            sizes = {name.removeprefix(data): info.file_size for name, info in names.items() if name.startswith(data)}
            scripted = f"{prefix}constants.pkl" in names
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f"It starts as a zip archive but is cut off or damaged ({str(error) or type(error).__name__}). "
            "Copy or download it again."
        ) from None
    return machine.read(io.BytesIO(content)), "TorchScript" if scripted else "PyTorch", sizes


def read_stream(file: BinaryIO) -> PickledFile:
    """Read a file that starts with a pickle: the format of PyTorch < 1.6, or a plain pickle.

    Raises CheckpointError when it is cut off, also within the data of the tensors.
    """
    bounded = BoundedFile(file, MAX_PICKLE_BYTES, "Its pickle")
    machine = PickleMachine()
    first = machine.read(bounded)
    if first != _LEGACY_MAGIC or not isinstance(first, int):
        return _pickled("pickle", first, machine)
    machine.read(bounded)  # version of the protocol
    machine.read(bounded)  # byte order and sizes of integers
    root = machine.read(bounded)
    keys = machine.read(bounded)
    result = _pickled("PyTorch before 1.6", root, machine)
    if not isinstance(keys, list):
        raise CheckpointError("Its list of storages is damaged.")
    _check_data(bounded, keys, machine)
    return result


def _check_directory(archive: zipfile.ZipFile, file: BoundedFile) -> None:
    """Raise CheckpointError unless the directory lies where the end of the archive says, as PyTorch looks for it.

    `zipfile` takes the one right before the end: a file with two would show one content and load another.
    """
    end = file.size_bytes - _END.size - len(archive.comment)
    (*_, start) = _END.unpack(_read_at(file, end, _END.size))
    locator = _read_at(file, max(0, end - _LOCATOR.size), _LOCATOR.size)
    if locator.startswith(_LOCATOR_MAGIC):
        (*_, place) = _LOCATOR.unpack(locator)
        (*_, start) = _END_64.unpack(_read_at(file, place, _END_64.size))
    if start != archive.start_dir:
        raise CheckpointError("Its directory is not where its end says. The file is damaged or made to deceive.")


def _read_at(file: BoundedFile, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _find_table(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the entry `NAME/data.pkl` that PyTorch writes."""
    inside = [info for info in archive.infolist() if info.filename.count("/") == 1]
    found = [info for info in inside if info.filename.lower().endswith("/data.pkl")]  # as PyTorch finds it
    if len(found) != 1 or not found[0].filename.endswith("/data.pkl"):
        raise CheckpointError(
            f"It is a zip archive, but not one of PyTorch: it has {'several' if len(found) > 1 else 'no'} data.pkl. "
            "gnomon reads what torch.save writes."
        )
    return found[0]


def _read_table(archive: zipfile.ZipFile, table: zipfile.ZipInfo) -> bytes:
    """Return the content of `data.pkl`; raise CheckpointError when it is too large, or compressed too far."""
    if table.file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(f"Its data.pkl has {table.file_size} bytes, which no table of contents needs.")
    if table.file_size > max(_SMALL_BYTES, _MAX_INFLATION * table.compress_size):
        raise CheckpointError(
            f"Its data.pkl has {table.compress_size} bytes and expands to {table.file_size}, more than "
            f"{_MAX_INFLATION} times as many. PyTorch does not compress it; the file is made to exhaust memory."
        )
    if table.CRC == 0:  # torch.serialization.set_crc32_options(False) leaves the checksums out
        del table.CRC
    with archive.open(table) as stream:
        return stream.read(table.file_size)


def is_tar(head: bytes) -> bool:
    """Return whether a file with this beginning is a tar archive, which PyTorch tries first, also without a magic."""
    try:
        tarfile.TarInfo.frombuf(head[:TAR_BLOCK_BYTES], "latin-1", "replace")
    except tarfile.HeaderError:
        return head[257:262] == b"ustar"
    return True


def _pickled(kind: str, root: Any, machine: PickleMachine, sizes: dict[str, int] | None = None) -> PickledFile:
    """Return the file with the pickles inside it read too, which `machine.mentions` grows by."""
    nested = {}
    loads = machine.mentions.calls.get(LOAD_FROM_BYTES, [])
    while machine.num_tried < len(loads):
        number, call = machine.num_tried, loads[machine.num_tried]
        machine.num_tried += 1
        try:
            found = as_storage(_read_inside(call, machine), {})
        except CheckpointError:
            continue
        machine.opened.add(id(call))
        if found is not None:
            nested[id(call)] = StorageRecord(f"inside {number}", found.dtype, found.num_elements)
    return PickledFile(kind, root, machine.mentions, sizes, nested, machine.opened)


def _saved_bytes(call: Call) -> bytes | None:
    """Return the file that `_load_from_bytes` would load; None where only running the pickle would tell."""
    content = call.arguments[0] if len(call.arguments) == 1 else None
    if isinstance(content, Call) and content.name == "_codecs.encode" and content.arguments[1:] == ("latin1",):
        text = content.arguments[0]
        content = text.encode("latin-1", "replace") if isinstance(text, str) else None
    return bytes(content) if isinstance(content, bytes | bytearray) else None


def _read_inside(call: Call, machine: PickleMachine) -> Any:
    """Return the object of a whole file that was saved inside a pickle, of either format; raise CheckpointError."""
    content = _saved_bytes(call)
    if content is None or is_tar(content):
        raise CheckpointError("It holds a file that gnomon does not read.")
    is_zip = content.startswith(ZIP_MAGIC)
    machine.budget_bytes -= len(content) + (_SMALL_BYTES // 4 if is_zip else 0)  # what is compressed may expand
    if machine.budget_bytes < 0:
        raise CheckpointError("It holds more files than any checkpoint needs.")
    file = io.BytesIO(content)
    if is_zip:
        return _read_archive(BoundedFile(file, MAX_DIRECTORY_BYTES, "A directory inside it"), machine)[0]
    magic, *_, root, _ = [machine.read(file) for _ in range(5)]  # as `read_stream`
    if magic != _LEGACY_MAGIC:
        raise CheckpointError("It holds a pickle that is no file of PyTorch.")
    return root


def _check_data(file: BoundedFile, keys: list[Any], machine: PickleMachine) -> None:
    """Raise CheckpointError when fewer bytes follow than the storages take: eight for the length, and the data."""
    records = [record for item in machine.externals if (record := as_storage(item, {})) is not None]
    sizes = {record.key: record.size_bytes for record in records}
    needed = sum(8 + sizes.get(str(key)[:MAX_KEY], 0) for key in keys)
    left = file.size_bytes - file.tell()
    if left < needed:
        raise CheckpointError(
            f"It is cut off: {needed} bytes of tensor data should follow its table of contents, {left} do. "
            "Copy or download it again."
        )
