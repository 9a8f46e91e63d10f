"""What a checkpoint holds, as nouns: tensors, other values, files and totals."""

from __future__ import annotations

from pydantic import NonNegativeInt

from gnomon.spec import FrozenMap, Noun

Scalar = str | int | float | bool | None
Value = Scalar | tuple[Scalar, ...]


class TensorEntry(Noun):
    """A tensor or array. `path` is where it lies in nested dictionaries, `name` the same joined by dots.

    `bytes` is the size of what the file holds of it; tensors of the same `storage` share memory.
    """

    path: tuple[str, ...]
    name: str
    shape: tuple[NonNegativeInt, ...]
    dtype: str
    bytes: NonNegativeInt
    kind: str = "tensor"
    storage: str | None = None
    storage_bytes: NonNegativeInt = 0
    offset: NonNegativeInt = 0
    strides: tuple[NonNegativeInt, ...] = ()
    num_elements: NonNegativeInt


class ValueEntry(Noun):
    """Anything but a tensor: a scalar, a list of scalars, an empty container, or the type of an object.

    `length` is the number of items of a list, of which `value` holds the first hundred.
    """

    path: tuple[str, ...]
    name: str
    type: str
    value: Value = None
    length: NonNegativeInt | None = None


class FileEntry(Noun):
    """A file that was read; `bytes` is its size on the disk."""

    path: str
    format: str
    bytes: NonNegativeInt


class Amount(Noun):
    """How much a group of tensors holds; what several tensors share counts once."""

    tensors: NonNegativeInt
    elements: NonNegativeInt
    bytes: NonNegativeInt


class Checkpoint(Noun):
    """A checkpoint. `calls` names what loading its pickles would import and call and gnomon does not understand.

    `stored_bytes` counts each storage whole, also where the tensors view only a part of it. `warnings` says what
    loading would run, `damage` what is missing or cut off of the data that the tables of contents promise.
    """

    path: str
    format: str
    files: tuple[FileEntry, ...]
    total: Amount
    by_dtype: FrozenMap[str, Amount]
    stored_bytes: NonNegativeInt
    tensors: tuple[TensorEntry, ...]
    values: tuple[ValueEntry, ...]
    calls: FrozenMap[str, NonNegativeInt]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    damage: tuple[str, ...] = ()
