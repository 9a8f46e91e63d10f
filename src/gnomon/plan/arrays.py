"""Structures of arrays: a scalar is an array of one, a batch of problems an array of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
T = TypeVar("T")


def array(value: Any) -> Array:
    """Return `value` as a float array with at least one dimension."""
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def stack(items: Sequence[T]) -> T:
    """Join structures of arrays of one case each into one of `len(items)` cases; text is taken from the first."""
    first: Any = items[0]
    if isinstance(first, np.ndarray):
        return np.concatenate([np.atleast_1d(i) for i in items])  # type: ignore[call-overload, no-any-return]
    if isinstance(first, Mapping):
        return {key: stack([i[key] for i in items]) for key in first}  # type: ignore[index, return-value]
    if isinstance(first, tuple):
        return tuple(stack(parts) for parts in zip(*items, strict=True))  # type: ignore[call-overload, return-value]
    if is_dataclass(first):
        values = {f.name: stack([getattr(i, f.name) for i in items]) for f in fields(first)}
        return type(first)(**values)  # type: ignore[return-value]
    return items[0]


def take(item: T, index: NDArray[np.intp]) -> T:
    """Return the cases at `index`; arrays of one case stand for all cases and are kept."""
    value: Any = item
    if isinstance(value, np.ndarray):
        return value if value.shape[0] == 1 else value[index]  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {key: take(v, index) for key, v in value.items()}  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(take(v, index) for v in value)  # type: ignore[return-value]
    if is_dataclass(value):
        return type(value)(**{f.name: take(getattr(value, f.name), index) for f in fields(value)})  # type: ignore[return-value]
    return item
