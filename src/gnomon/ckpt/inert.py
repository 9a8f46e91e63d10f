"""What a pickle says, as plain records: no name is imported, no call is made, nothing is hashed or compared."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_IMPORTED = sys.stdlib_module_names | {"cloudpickle", "dill", "joblib", "numpy", "pandas", "pip", "setuptools", "torch"}


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function that the pickle names."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """The module and the name in it, or the package that it leads to: `os.system` of a module that imports `os`."""
        parts = self.name.split(".")
        for start in range(len(parts) - 2, -1, -1):
            if parts[start] in _IMPORTED:
                return ".".join(parts[start:])
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Pairs:
    """A dictionary, as its keys and values in order."""

    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Members:
    """A set."""

    items: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Call:
    """What calling `function` with `arguments` would give; `state`, `items` and `pairs` were put into it later."""

    function: Any
    arguments: Sequence[Any]
    keywords: Pairs | None = None
    state: Any = None
    items: list[Any] | None = None
    pairs: list[tuple[Any, Any]] | None = None

    @property
    def name(self) -> str:
        """The dotted name of the function; empty when the function is itself the result of a call."""
        return self.function.dotted if isinstance(self.function, Global) else ""


@dataclass(eq=False, slots=True)
class External:
    """A reference to something stored outside the pickle, such as the data of a tensor."""

    identity: Any


def as_pairs(value: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and values of a dictionary or an ordered one; None for anything else."""
    if isinstance(value, Pairs):
        return value.items
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, Call) and value.name in ("collections.OrderedDict", "collections.defaultdict"):
        first = value.arguments[0] if value.arguments else None
        return [*_initial_pairs(first), *(value.pairs or ())]
    return None


def attributes(value: Any) -> dict[str, Any]:
    """Return what the state of an object sets by name: its dictionary, its slots, or both; empty for another state."""
    state = value.state if isinstance(value, Call) else None
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    found: dict[str, Any] = {}
    for part in parts:
        found |= {key: item for key, item in as_pairs(part) or () if isinstance(key, str)}
    return found


def state_pairs(state: Any) -> list[list[tuple[Any, Any]]] | None:
    """Return what a state sets, of its dictionary, its slots or both; None for a state that is something else."""
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    groups = [[] if part is None else as_pairs(part) for part in parts]
    return None if None in groups else [group for group in groups if group]


def _initial_pairs(value: Any) -> list[tuple[Any, Any]]:
    """Return the pairs that an OrderedDict was made from; the protocols 0 and 1 give it a list of pairs."""
    if isinstance(value, Pairs):
        return value.items
    if isinstance(value, list):
        return [(pair[0], pair[1]) for pair in value if isinstance(pair, tuple | list) and len(pair) == 2]
    return []
