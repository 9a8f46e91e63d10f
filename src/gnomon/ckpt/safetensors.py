"""Read the header of a safetensors file (https://github.com/huggingface/safetensors, section Format)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

from gnomon.ckpt import dtypes
from gnomon.ckpt.printing import encodable, printable, told_apart
from gnomon.ckpt.tensors import Shape, TensorRecord, as_shape
from gnomon.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own library
_LENGTH_BYTES = 8
_METADATA = "__metadata__"


def read_safetensors(file: BinaryIO) -> tuple[dict[str, TensorRecord], dict[str, str]]:
    """Return the tensors by name and the metadata; raise CheckpointError when header and file contradict each other.

    As the format demands, the data of the tensors must fill the file without gaps and overlaps.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"Its header would have {length} bytes; safetensors allows {MAX_HEADER_BYTES}.")
    if _LENGTH_BYTES + length > size:
        raise CheckpointError(
            f"It is cut off: its header should have {length} bytes, {max(0, size - _LENGTH_BYTES)} follow. "
            "Copy or download it again."
        )
    header = _parse(file.read(length))
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict):
        raise CheckpointError(f"Its header is damaged: {_METADATA} is not a mapping.")
    spans: list[tuple[int, int, str]] = []
    tensors = []
    for name, entry in header.items():
        tensor, begin, end = _tensor(name, entry)
        tensors.append(tensor)
        spans.append((begin, end, name))
    _check_spans(sorted(spans), size - _LENGTH_BYTES - length)
    values = map(encodable, map(str, metadata.values()))
    return dict(zip(_names(header), tensors, strict=True)), dict(zip(_names(metadata), values, strict=True))


def _names(mapping: Mapping[str, Any]) -> list[str]:
    """Return names that are safe to print, no two the same."""
    return told_apart([printable(name) for name in mapping])


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"Its header is not the JSON of safetensors ({error}).") from None
    if not isinstance(header, dict):
        raise CheckpointError("Its header is not the JSON of safetensors: it is not a mapping.")
    return header


def _tensor(name: str, entry: Any) -> tuple[TensorRecord, int, int]:
    """Return a tensor and where its data begins and ends."""
    if not isinstance(entry, Mapping):
        raise CheckpointError(f"Its header is damaged: '{printable(name)}' is not described by a mapping.")
    dtype, shape = dtypes.dtype_of_safetensors(entry.get("dtype")), as_shape(entry.get("shape"))
    offsets: Shape | None = as_shape(entry.get("data_offsets"))
    if dtype is None:
        code = printable(str(entry.get("dtype")))
        raise CheckpointError(
            f"Its tensor '{printable(name)}' has the dtype '{code}', which safetensors does not define."
        )
    if shape is None or offsets is None or len(offsets) != 2:
        raise CheckpointError(
            f"Its header is damaged: shape or data_offsets of '{printable(name)}' are no such numbers."
        )
    tensor = TensorRecord(shape, dtype)
    needed = dtypes.size_bytes(dtype, tensor.num_elements)
    if offsets[1] - offsets[0] != needed:
        raise CheckpointError(
            f"Its header is damaged: '{printable(name)}' needs {needed} bytes and has {offsets[1] - offsets[0]}."
        )
    return tensor, offsets[0], offsets[1]


def _check_spans(spans: list[tuple[int, int, str]], available: int) -> None:
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "does not follow the tensor before it"
            raise CheckpointError(f"Its header is damaged: the data of '{printable(name)}' {what}.")
        position = end
    if position > available:
        raise CheckpointError(
            f"It is cut off: {position} bytes of tensor data should follow its header, {available} do. "
            "Copy or download it again."
        )
    if position < available:
        raise CheckpointError(f"It is damaged: {available - position} bytes after its tensors belong to none of them.")
