"""Keys of dictionaries: which of them are one and the same, and what to call them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gnomon.ckpt.callables import describe
from gnomon.ckpt.inert import Call, Global, Members
from gnomon.ckpt.printing import printable, told_apart
from gnomon.ckpt.tensors import as_tensor

Path = tuple[str, ...]
Pair = tuple[Any, Any]

_MAX_PARTS = 32
_MAX_BITS = 4096
# calls whose results are equal when their arguments are; two tensors or other objects are two keys whatever they hold
_BY_VALUE = {
    *("builtins.bytes", "builtins.complex", "builtins.frozenset", "builtins.range", "_codecs.encode"),
    *("datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta", "decimal.Decimal"),
    *("fractions.Fraction", "pathlib.PosixPath", "pathlib.PurePosixPath", "pathlib.WindowsPath"),
    *("torch.Size", "torch.device"),
}


class _TooLongError(Exception):
    """A key of more parts than are compared."""


def entries(*groups: Iterable[Pair]) -> list[tuple[str, Any]]:
    """Return names and values of dictionaries that are shown together, no two of one name.

    Of equal keys in one dictionary the last value counts, as in Python. Other keys whose texts are the same get a
    number, see `told_apart`.
    """
    pairs = [pair for group in groups for pair in _last_of_each(group)]
    names = told_apart([key_text(key) for key, _ in pairs])
    return [(name, item) for name, (_, item) in zip(names, pairs, strict=True)]


def key_text(key: Any) -> str:
    """Return a key as text that is safe to print."""
    if isinstance(key, str):
        return printable(key)
    tensor = as_tensor(key)
    return printable(describe(key) if tensor is None else f"<tensor {tensor.shape}>")


def _last_of_each(pairs: Iterable[Pair]) -> list[Pair]:
    found: dict[object, Pair] = {}
    for key, item in pairs:
        same = _identity(key)
        found[same] = (found[same][0] if same in found else key, item)
    return list(found.values())


def _identity(key: Any) -> object:
    """Return what is equal for equal keys: their content, or which object it is where that is long or not known."""
    try:
        return _content(key, [_MAX_PARTS])
    except _TooLongError:
        return _itself(key)


def _content(value: Any, left: list[int]) -> object:
    left[0] -= 1
    if left[0] < 0:
        raise _TooLongError
    if isinstance(value, tuple | list):
        return (type(value).__name__, *(_content(item, left) for item in value))
    if isinstance(value, Members):
        return frozenset(_content(item, left) for item in value.items)
    if isinstance(value, Call) and value.name in _BY_VALUE and value.state is None and not value.items:
        return (value.name, *(_content(item, left) for item in value.arguments))
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return _itself(value)
    is_value = value is None or isinstance(value, int | float | str | bytes | Global)
    return value if is_value else _itself(value)


def _itself(value: Any) -> object:
    return ("", id(value))
