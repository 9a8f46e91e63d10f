"""Structures of arrays: a scalar is an array of one, a batch of problems an array of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
T = TypeVar("T")


def array(value: Any) -> Array:
    """Return `value` as a float array with at least one dimension."""
    return np.atleast_1d(np.asarray(value, dtype=np.float64))


def stack(items: Sequence[T]) -> T:
    """Join structures of arrays of one case each into one of `len(items)` cases; text is taken from the first."""
    return cast(T, _stack(items))


def _stack(items: Sequence[Any]) -> Any:
    first = items[0]
    if isinstance(first, np.ndarray):
        return np.concatenate([np.atleast_1d(i) for i in items])
    if isinstance(first, Mapping):
        return {key: _stack([i[key] for i in items]) for key in first}
    if isinstance(first, tuple):
        return tuple(_stack(parts) for parts in zip(*items, strict=True))
    if is_dataclass(first):
        kind: Any = type(first)
        return kind(**{f.name: _stack([getattr(i, f.name) for i in items]) for f in fields(first)})
    return first


def take(item: T, index: NDArray[np.intp]) -> T:
    """Return the cases at `index`; arrays of one case stand for all cases and are kept."""
    return cast(T, _take(item, index))


def _take(value: Any, index: NDArray[np.intp]) -> Any:
    if isinstance(value, np.ndarray):
        return value if value.shape[0] == 1 else value[index]
    if isinstance(value, Mapping):
        return {key: _take(v, index) for key, v in value.items()}
    if isinstance(value, tuple):
        return tuple(_take(v, index) for v in value)
    if is_dataclass(value):
        kind: Any = type(value)
        return kind(**{f.name: _take(getattr(value, f.name), index) for f in fields(value)})
    return value
