"""Recognise a `torch.nn.Module` that was saved as an object, and what its `state_dict()` would hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gnomon.ckpt.inert import Call, Members, as_pairs, attributes
from gnomon.ckpt.keys import Pair

_PARAMETERS, _BUFFERS, _MODULES = "_parameters", "_buffers", "_modules"
_NOT_PERSISTENT = "_non_persistent_buffers_set"


class ModuleParts(NamedTuple):
    """What a module holds: the parts of its `state_dict()`, the buffers that this leaves out, its public attributes."""

    parts: list[list[Pair]]
    left_out: list[Any]
    public: list[Pair]


def is_module(call: Call) -> bool:
    """Return whether an object has what every module has."""
    return attributes(call).keys() >= {_PARAMETERS, _BUFFERS, _MODULES}


def module_parts(inner: Mapping[str, Any]) -> ModuleParts:
    """Return the parts of a module, of which `inner` are the attributes."""
    passing = _texts(inner.get(_NOT_PERSISTENT))
    parameters, buffers, modules = (
        [pair for pair in as_pairs(inner[name]) or () if pair[1] is not None]
        for name in (_PARAMETERS, _BUFFERS, _MODULES)
    )
    kept = [pair for pair in buffers if not _is_among(pair[0], passing)]
    left_out = [item for key, item in buffers if _is_among(key, passing)]
    public = [(name, item) for name, item in inner.items() if not name.startswith("_") and name != "training"]
    return ModuleParts([parameters, kept, modules], left_out, public)


def _is_among(key: Any, names: set[str]) -> bool:
    return isinstance(key, str) and key in names


def _texts(value: Any) -> set[str]:
    """Return the texts in a set, as any protocol writes it."""
    if isinstance(value, Call) and value.name == "builtins.set" and value.arguments:
        value = value.arguments[0]
    items = value.items if isinstance(value, Members) else value
    return {item for item in items if isinstance(item, str)} if isinstance(items, list | tuple) else set()
