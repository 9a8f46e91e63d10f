"""What the annotations of `execute` say about inputs and outputs."""

from __future__ import annotations

import inspect
import numbers
import types
import typing
from collections.abc import Callable
from typing import Any, Union

_WIDER: dict[Any, Any] = {float: numbers.Real, int: numbers.Integral, complex: numbers.Complex}
"""What is taken where a number is asked for: those of NumPy too."""


def hints_of(execute: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations by parameter and under `return`; none where they cannot be resolved."""
    try:
        return typing.get_type_hints(execute)
    except Exception:  # names that only the type checker imports
        return {}


def count_outputs(hint: Any) -> int | None:
    """Return the number of outputs that a return annotation promises, or None where it does not say."""
    if hint is None or hint is type(None):
        return 0
    if typing.get_origin(hint) is tuple:
        parts = typing.get_args(hint)
        return None if Ellipsis in parts else len(parts)
    if hint is Any or hint is object or (inspect.isclass(hint) and issubclass(hint, tuple)):
        return None
    if inspect.isclass(hint):
        return 1
    return 1 if inspect.isclass(typing.get_origin(hint)) and typing.get_origin(hint) is not types.UnionType else None


def matches(value: Any, hint: Any) -> bool:
    """Whether a value is what an annotation says; True where that cannot be told (`Any`, protocols, type variables)."""
    if hint is Any or isinstance(hint, str | typing.TypeVar):
        return True
    if hint is None or hint is type(None):
        return value is None
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, part) for part in parts)
    if origin is typing.Annotated:
        return matches(value, parts[0])
    if origin is tuple and parts and parts[-1] is not Ellipsis and parts != ((),):
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(matches, value, parts))
    kind = hint if origin is None else origin
    if not inspect.isclass(kind):
        return True
    try:
        return isinstance(value, _WIDER.get(kind, kind))
    except TypeError:  # a protocol that cannot be checked
        return True


def show_hint(hint: Any) -> str:
    return (
        hint.__name__ if inspect.isclass(hint) and typing.get_origin(hint) is None else str(hint).replace("typing.", "")
    )
