"""Read what `torch.save` and `pickle.dump` write, up to the data of the tensors."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from gnomon.ckpt.bounded_file import BoundedFile
from gnomon.ckpt.inert import Call
from gnomon.ckpt.pickle_machine import MAX_PICKLE_BYTES, PickleMachine
from gnomon.ckpt.tensors import LOAD_FROM_BYTES, MAX_KEY, StorageRecord, as_storage
from gnomon.errors import CheckpointError

MAX_DIRECTORY_BYTES = 64 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError)


@dataclass
class PickledFile:
    """The object in a file, what loading it would call, and the bytes of each storage where the file tells."""

    format: str
    root: Any
    num_calls: dict[str, int]
    calls: dict[str, list[Call]]
    storage_bytes: dict[str, int] | None = None
    nested: dict[int, StorageRecord] = field(default_factory=dict)


def read_zip(
    file: BinaryIO, start: int = 0, size_bytes: int | None = None, machine: PickleMachine | None = None
) -> PickledFile:
    """Read the zip format of PyTorch >= 1.6; raise CheckpointError when it is cut off, damaged or something else.

    `start` and `size_bytes` say where it lies inside a larger file.
    """
    machine = machine or PickleMachine()
    bounded = BoundedFile(file, MAX_DIRECTORY_BYTES, "Its directory", start, size_bytes)
    try:
        with zipfile.ZipFile(bounded) as archive:
            table = _find_table(archive)
            prefix = table.filename.removesuffix("data.pkl")
            bounded.budget_bytes = MAX_PICKLE_BYTES
            if table.file_size > MAX_PICKLE_BYTES:
                raise CheckpointError(f"Its data.pkl has {table.file_size} bytes, which no table of contents needs.")
            if table.CRC == 0:  # torch.serialization.set_crc32_options(False) leaves the checksums out
                del table.CRC
            with archive.open(table) as stream:
                content = stream.read(MAX_PICKLE_BYTES + 1)
            names = archive.NameToInfo
            data = f"{prefix}data/"
            sizes = {name.removeprefix(data): info.file_size for name, info in names.items() if name.startswith(data)}
            scripted = f"{prefix}constants.pkl" in names
    except _ZIP_ERRORS as error:
        raise CheckpointError(
            f"It starts as a zip archive but is cut off or damaged ({str(error) or type(error).__name__}). "
            "Copy or download it again."
        ) from None
    root = machine.read(io.BytesIO(content))
    return _pickled("TorchScript" if scripted else "PyTorch", root, machine, sizes)


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


def _find_table(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Return the entry `NAME/data.pkl` that PyTorch writes."""
    found = [info for info in archive.infolist() if info.filename.count("/") == 1 and info.filename[-9:] == "/data.pkl"]
    if len(found) != 1:
        raise CheckpointError(
            "It is a zip archive, but not one of PyTorch: it has no data.pkl. gnomon reads what torch.save writes."
        )
    return found[0]


def _pickled(kind: str, root: Any, machine: PickleMachine, sizes: dict[str, int] | None = None) -> PickledFile:
    result = PickledFile(kind, root, dict(machine.num_calls), machine.calls, sizes)
    for number, call in enumerate(machine.calls.get(LOAD_FROM_BYTES, ())):
        storage = _nested_storage(call, machine, number)
        if storage is not None:
            result.nested[id(call)] = storage
    result.num_calls = dict(machine.num_calls)  # with those of the pickles inside
    return result


def _nested_storage(call: Call, machine: PickleMachine, number: int) -> StorageRecord | None:
    """Return the storage that was saved as bytes inside a pickle: a whole file of the format before 1.6."""
    content = call.arguments[0] if call.arguments else None
    if isinstance(content, Call) and content.name == "_codecs.encode" and isinstance(content.arguments[0], str):
        content = content.arguments[0].encode("latin-1", "ignore")
    if not isinstance(content, bytes):
        return None
    stream = io.BytesIO(content)
    try:
        parts = [machine.read(stream) for _ in range(4)]
    except CheckpointError:
        return None
    found = as_storage(parts[3], {})
    return None if found is None else StorageRecord(f"inside {number}", found.dtype, found.num_elements)


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
