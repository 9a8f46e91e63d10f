"""Remember from which configuration an object was made, without holding on to the object."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Description:
    """The mapping that an object was made from, and the callables that its `_target_`s lead to."""

    mapping: dict[str, Any]
    targets: tuple[Callable[..., Any], ...]


_known: dict[int, tuple[weakref.ref[Any], Description]] = {}  # by id, since objects may be unhashable or compare oddly


def describe(made: Any, mapping: dict[str, Any], targets: tuple[Callable[..., Any], ...]) -> None:
    """Remember the description of an object for as long as it lives; does nothing for one without weak references."""
    identity = id(made)
    try:
        reference = weakref.ref(made, lambda _: _known.pop(identity, None))
    except TypeError:
        return
    _known[identity] = (reference, Description(mapping, targets))


def description_of(made: Any) -> Description | None:
    """Return what an object was made from, None where it did not come from a configuration."""
    reference, description = _known.get(id(made), (None, None))
    return description if reference is not None and reference() is made else None
