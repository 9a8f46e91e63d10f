"""What components return, as JSON values."""

from __future__ import annotations

from typing import Any


def jsonable(value: Any) -> Any:
    """Return plain JSON values for nouns, run directories, paths and containers; other objects as their text."""
    if hasattr(value, "to_mapping"):
        return value.to_mapping()
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(getattr(value, "path", value))
