"""Read the table of contents of a `torch.distributed.checkpoint` folder, its file `.metadata`.

The classes are those of PyTorch's `torch/distributed/checkpoint/metadata.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, BinaryIO, NamedTuple

from gnomon.ckpt.bounded_file import BoundedFile
from gnomon.ckpt.inert import Call, as_pairs, attributes
from gnomon.ckpt.pickle_machine import MAX_PICKLE_BYTES, PickleMachine
from gnomon.ckpt.tensors import TensorRecord, as_dtype, as_shape, is_size
from gnomon.ckpt.walk import Path, key_text
from gnomon.errors import CheckpointError

_MODULE = "torch.distributed.checkpoint.metadata"


class Place(NamedTuple):
    """Where something is stored: the name of a file beside `.metadata`, and the bytes in it."""

    file: str
    offset: int
    length: int


@dataclass
class DistributedCheckpoint:
    """Tensors and other objects by path, and how many bytes each data file must have at least."""

    tensors: dict[Path, TensorRecord] = field(default_factory=dict)
    objects: dict[Path, Place | None] = field(default_factory=dict)
    file_bytes: dict[str, int] = field(default_factory=dict)
    num_calls: dict[str, int] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)


def read_metadata(file: BinaryIO) -> DistributedCheckpoint:
    """Return what `.metadata` lists; raise CheckpointError when it is damaged or something else."""
    machine = PickleMachine()
    root = machine.read(BoundedFile(file, MAX_PICKLE_BYTES, "Its table of contents"))
    table = attributes(root)
    entries = as_pairs(table.get("state_dict_metadata"))
    if not isinstance(root, Call) or root.name != f"{_MODULE}.Metadata" or entries is None:
        raise CheckpointError("It is not the table of contents of a distributed checkpoint.")
    result = DistributedCheckpoint(num_calls=machine.num_calls, calls=machine.calls)
    paths = {key: _path(path) for key, path in as_pairs(table.get("planner_data")) or () if isinstance(key, str)}
    places = _read_places(table.get("storage_data"), result.file_bytes)
    for key, entry in entries:
        path = (isinstance(key, str) and paths.get(key)) or (key_text(key),)
        tensor = _tensor(entry)
        if tensor is not None:
            result.tensors[path] = tensor
        elif isinstance(entry, Call) and entry.name == f"{_MODULE}.BytesStorageMetadata":
            result.objects[path] = places.get(key) if isinstance(key, str) else None
        else:
            raise CheckpointError(f"Its table of contents is damaged: '{key_text(key)}' is neither tensor nor object.")
    return result


def _tensor(entry: Any) -> TensorRecord | None:
    """Return the tensor of a `TensorStorageMetadata`: properties (first of them the dtype), size and chunks."""
    if not isinstance(entry, Call) or entry.name != f"{_MODULE}.TensorStorageMetadata":
        return None
    described = attributes(entry)
    properties = described.get("properties")
    if not isinstance(properties, Call):
        return None
    first = properties.state[0] if isinstance(properties.state, tuple) and properties.state else None
    dtype, shape = as_dtype(first) or as_dtype(attributes(properties).get("dtype")), as_shape(described.get("size"))
    if dtype is None or shape is None:
        return None
    chunks = described.get("chunks")
    pieces = len(chunks) if isinstance(chunks, list) else 0
    return TensorRecord(shape, dtype, kind="tensor" if pieces <= 1 else f"tensor in {pieces} pieces")


def _read_places(storage_data: Any, file_bytes: dict[str, int]) -> dict[str, Place]:
    """Return where each name lies (a tensor: its last piece); `file_bytes` gets how long each file must be at least."""
    places: dict[str, Place] = {}
    for index, info in as_pairs(storage_data) or ():
        name, where = attributes(index).get("fqn"), attributes(info)
        file, offset, length = where.get("relative_path"), where.get("offset"), where.get("length")
        if not isinstance(name, str) or not isinstance(file, str) or not is_size(offset) or not is_size(length):
            continue
        if PurePath(file).name == file:  # a name with folders could lead anywhere
            places[name] = Place(file, offset, length)
            file_bytes[file] = max(file_bytes.get(file, 0), offset + length)
    return places


def _path(value: Any) -> Path:
    return tuple(key_text(part) for part in value) if isinstance(value, tuple) else ()
