"""Add up tensors, counting once what several of them share."""

from __future__ import annotations

from collections.abc import Iterable

from gnomon.ckpt import dtypes
from gnomon.ckpt.contents import Amount, TensorEntry


def amount(tensors: Iterable[TensorEntry]) -> Amount:
    """Return the number of tensors, their elements and bytes.

    Tensors of one storage count its distinct views, at most the whole storage: tied weights count once, and so does
    a tensor that repeats its elements by strides of zero.
    """
    parts = by_dtype(tensors).values()
    return Amount(
        tensors=sum(part.tensors for part in parts),
        elements=sum(part.elements for part in parts),
        bytes=sum(part.bytes for part in parts),
    )


def by_dtype(tensors: Iterable[TensorEntry]) -> dict[str, Amount]:
    """Return the amounts of each dtype, the largest first."""
    count: dict[str, int] = {}
    views: dict[str, dict[str, dict[object, int]]] = {}
    limits: dict[str, int] = {}
    for index, tensor in enumerate(tensors):
        count[tensor.dtype] = count.get(tensor.dtype, 0) + 1
        storage = tensor.storage if tensor.storage is not None else f"\0{index}"  # no path holds this character
        limits[storage] = tensor.storage_bytes if tensor.storage is not None else tensor.bytes
        view = (tensor.offset, tensor.shape, tensor.strides)
        views.setdefault(tensor.dtype, {}).setdefault(storage, {})[view] = tensor.num_elements
    amounts = {}
    for dtype, storages in views.items():
        elements = sum(_once(dtype, found, limits[storage]) for storage, found in storages.items())
        amounts[dtype] = Amount(tensors=count[dtype], elements=elements, bytes=dtypes.size_bytes(dtype, elements))
    return dict(sorted(amounts.items(), key=lambda item: -item[1].bytes))


def stored_bytes(tensors: Iterable[TensorEntry]) -> int:
    """Return the bytes of all storages, each once and whole, and of the tensors that have none."""
    storages = {tensor.storage: tensor.storage_bytes for tensor in tensors if tensor.storage is not None}
    return sum(storages.values()) + sum(tensor.bytes for tensor in tensors if tensor.storage is None)


def _once(dtype: str, views: dict[object, int], limit_bytes: int) -> int:
    return min(sum(views.values()), dtypes.num_elements(dtype, limit_bytes))
