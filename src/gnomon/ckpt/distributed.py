"""Read the table of contents of a `torch.distributed.checkpoint` folder, its file `.metadata`.

The classes are those of PyTorch's `torch/distributed/checkpoint/metadata.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from gnomon.ckpt.bounded_file import BoundedFile
from gnomon.ckpt.cover import Chunk
from gnomon.ckpt.inert import Call, as_pairs, attributes
from gnomon.ckpt.keys import Path, key_text
from gnomon.ckpt.mentions import Mentions
from gnomon.ckpt.pickle_machine import MAX_PICKLE_BYTES, PickleMachine
from gnomon.ckpt.printing import told_apart
from gnomon.ckpt.tensors import Shape, TensorRecord, as_dtype, as_shape, is_size
from gnomon.errors import CheckpointError

_MODULE = "torch.distributed.checkpoint.metadata"

Part = tuple[str, Shape | None]
"""The name of a tensor and where a piece of it begins; of an object, its name and None."""


class Place(NamedTuple):
    """Where something is stored: a file in the folder of `.metadata`, and the bytes in it."""

    file: str
    offset: int
    length: int


class Stored(NamedTuple):
    """A tensor and its pieces, or an object, which has neither."""

    key: str
    path: Path
    tensor: TensorRecord | None
    chunks: list[Chunk]

    @property
    def parts(self) -> list[Part]:
        """What must be stored of it; empty pieces need not be."""
        if self.tensor is None:
            return [(self.key, None)]
        return [(self.key, chunk.offsets) for chunk in self.chunks if not chunk.is_empty]


@dataclass
class DistributedCheckpoint:
    """What `.metadata` lists, where each part of it lies, and what loading it would call and import."""

    stored: list[Stored]
    places: dict[Part, Place]
    mentions: Mentions = field(default_factory=Mentions)


def read_metadata(file: BinaryIO) -> DistributedCheckpoint:
    """Return what `.metadata` lists; raise CheckpointError when it is damaged or something else."""
    machine = PickleMachine()
    root = machine.read(BoundedFile(file, MAX_PICKLE_BYTES, "Its table of contents"))
    table = attributes(root)
    entries = as_pairs(table.get("state_dict_metadata"))
    if not isinstance(root, Call) or root.name != f"{_MODULE}.Metadata" or entries is None:
        raise CheckpointError("It is not the table of contents of a distributed checkpoint.")
    names = {key_text(key): entry for key, entry in entries if not isinstance(key, str)}
    if names:
        raise CheckpointError(f"Its table of contents is damaged: '{next(iter(names))}' is no name.")
    listed = dict(entries)
    paths = _paths(list(listed), table.get("planner_data"))
    stored = [_stored(key, paths[key], entry) for key, entry in listed.items()]
    return DistributedCheckpoint(stored, _places(table.get("storage_data")), machine.mentions)


def _paths(keys: list[str], planner_data: Any) -> Mapping[str, Path]:
    """Return the path of each name, no two the same: that in nested dictionaries, where the planner kept it."""
    nested = {key: _path(path) for key, path in as_pairs(planner_data) or () if isinstance(key, str)}
    paths = [nested.get(key) or (key_text(key),) for key in keys]
    separate = told_apart(["\0".join(path) for path in paths])  # no path holds this character
    return {key: tuple(path.split("\0")) for key, path in zip(keys, separate, strict=True)}


def _path(value: Any) -> Path:
    return tuple(key_text(part) for part in value) if isinstance(value, tuple) else ()


def _stored(key: str, path: Path, entry: Any) -> Stored:
    if isinstance(entry, Call) and entry.name == f"{_MODULE}.BytesStorageMetadata":
        return Stored(key, path, None, [])
    described = attributes(entry)
    tensor = _tensor(described)
    if not isinstance(entry, Call) or entry.name != f"{_MODULE}.TensorStorageMetadata" or tensor is None:
        raise CheckpointError(f"Its table of contents is damaged: '{key_text(key)}' is neither tensor nor object.")
    return Stored(key, path, tensor, _chunks(described.get("chunks")))


def _tensor(described: Mapping[str, Any]) -> TensorRecord | None:
    """Return the tensor of a `TensorStorageMetadata`: properties (first of them the dtype), size and chunks."""
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


def _chunks(value: Any) -> list[Chunk]:
    """Return the pieces of a tensor, of those that say where they lie."""
    found = []
    for chunk in value if isinstance(value, list) else ():
        described = attributes(chunk)
        offsets, sizes = as_shape(described.get("offsets")), as_shape(described.get("sizes"))
        if offsets is not None and sizes is not None:
            found.append(Chunk(offsets, sizes))
    return found


def _places(storage_data: Any) -> dict[Part, Place]:
    places: dict[Part, Place] = {}
    for index, info in as_pairs(storage_data) or ():
        which, where = attributes(index), attributes(info)
        name, begin = which.get("fqn"), which.get("offset")
        file, offset, length = where.get("relative_path"), where.get("offset"), where.get("length")
        if isinstance(name, str) and isinstance(file, str) and is_size(offset) and is_size(length):
            places[name, as_shape(begin)] = Place(file, offset, length)
    return places
