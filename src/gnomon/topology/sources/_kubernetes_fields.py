"""Fields of the JSON that a Kubernetes server answers, each checked to be of the kind that its API documents."""

from __future__ import annotations

import reprlib
from typing import Any, TypeVar

T = TypeVar("T")

_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "text"}


class FieldError(Exception):
    """A field that is missing or of another kind; the message names it and what was found."""


def field(holder: Any, key: str, kind: type[T], default: T | None = None) -> T:
    """Return the field `key` of a JSON object; where it is absent or null, the default if there is one.

    Raises FieldError for a holder that is no object, a field of another kind, and an absent one without default.
    """
    if not isinstance(holder, dict):
        raise FieldError(f"expected a mapping with '{key}', found {reprlib.repr(holder)}")
    value = holder.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind):
        found = reprlib.repr(value) if value is not None else "null" if key in holder else "missing"
        raise FieldError(f"'{key}' is {found}, expected {_KINDS[kind]}")
    return value


def texts(holder: Any, key: str) -> dict[str, str]:
    """Return a mapping of texts such as labels, empty where it is absent or null; raise FieldError as `field` does."""
    values = field(holder, key, dict, {})
    for name in values:
        try:
            field(values, name, str)
        except FieldError as error:
            raise FieldError(f"in '{key}', {error}") from None
    return values
