"""Whether settings are of the scalar types that the constructor of a component is annotated with."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union

from gnomon.errors import ConfigError, did_you_mean

_NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
}
_PLAIN = (type(None), bool, int, float, str, list, dict)


def check_scalars(call: Callable[..., Any], arguments: Mapping[str, Any], path: str, target: str) -> None:
    """Raise ConfigError for the first of the `arguments` of a component that is not as annotated.

    Only int, float, bool, str, None, Literal and unions of these are compared, and only with values as they stand in
    a configuration; where an annotation cannot be resolved, none is.
    """
    try:
        hints = typing.get_type_hints(call.__init__)
    except Exception:  # names that only the type checker imports
        return
    defaults = inspect.signature(call).parameters
    for key, value in arguments.items():
        kinds = _scalar_kinds(hints.get(key, Any))
        if not kinds or type(value) not in _PLAIN or _fits(value, kinds):
            continue
        if value is None and key in defaults and defaults[key].default is None:
            continue  # `n: int = None`, as it was written before Optional
        where = f"{path}.{key}" if path else key
        raise ConfigError(f"'{where}' is {_show(value)}, but {target} takes {_wanted(kinds)}. {_advice(value, kinds)}")


def _scalar_kinds(hint: Any) -> tuple[Any, ...]:
    """Return the scalar types and the values that an annotation allows; none where it allows anything else too."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _scalar_kinds(typing.get_args(hint)[0])
    if origin in (Union, types.UnionType):
        parts = [_scalar_kinds(part) for part in typing.get_args(hint)]
        return tuple(kind for part in parts for kind in part) if all(parts) else ()
    if origin is Literal:
        return (hint,) if all(type(value) in _NAMES for value in typing.get_args(hint)) else ()
    return (hint,) if hint in _NAMES else ()


def _fits(value: Any, kinds: tuple[Any, ...]) -> bool:
    return any(
        value in typing.get_args(kind) if typing.get_origin(kind) is Literal else _is_a(value, kind) for kind in kinds
    )


def _is_a(value: Any, kind: type) -> bool:
    if kind is bool:  # 0 and 1 mean what Python says they mean
        return value is True or value is False or (type(value) is int and value in (0, 1))
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _wanted(kinds: tuple[Any, ...]) -> str:
    options = [option for kind in kinds for option in _options(kind)]
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _options(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return [_show(value) for value in typing.get_args(kind)]
    return [_NAMES[kind]]


def _advice(value: Any, kinds: tuple[Any, ...]) -> str:
    """Return the nearest value that would do, where there is one."""
    literals = [each for kind in kinds if typing.get_origin(kind) is Literal for each in typing.get_args(kind)]
    if isinstance(value, str) and literals:
        return did_you_mean(value, [each for each in literals if isinstance(each, str)]) or "Choose one of these."
    if str in kinds and not isinstance(value, list | dict):
        return f"Put it into quotes: '{_show(value)}'." if value is not None else "Set it, or leave it out."
    if isinstance(value, float) and value.is_integer() and int in kinds:
        return f"Write {int(value)}."
    if isinstance(value, str) and (parsed := _parsed(value, kinds)) is not None:
        return f"Write {parsed} without quotes."
    return "Set it, or leave it out." if value is None else "Correct the value, or the annotation."


def _parsed(text: str, kinds: tuple[Any, ...]) -> str | None:
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower()
    for kind in (int, float):
        if kind in kinds:
            try:
                return str(kind(text))
            except ValueError:
                continue
    return None


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | dict):
        return f"a {'list' if isinstance(value, list) else 'mapping'}"
    return repr(value)
