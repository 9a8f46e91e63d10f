"""What pickles mention: the calls that they ask for, what these are given, and the names that loading would import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gnomon.ckpt.callables import is_method, runs_on_import, runs_something
from gnomon.ckpt.implied import implied_by_state, implied_calls
from gnomon.ckpt.inert import Call, Global, Members, Pairs
from gnomon.ckpt.known_names import is_known
from gnomon.ckpt.tensors import LOAD_FROM_BYTES
from gnomon.errors import CheckpointError

MAX_ARGUMENTS = 20_000_000
_MAX_NAMES = 10_000
_MAX_IMPLIED = 16  # calls within calls that are followed
_GETATTR = "builtins.getattr"  # which pickles use to name members of classes


class Mentions:
    """Keeps book of one or more pickles.

    `calls` holds every call by name, those that calls would make included (`implied_calls`); under the empty name are
    those whose function is not named, or not known. `given` holds what would run something, by name, with a call of a
    function that gnomon does not know and that is given it. `named` holds the names of what would run something if it
    were called, `imported` the modules that do so when a name of them is looked up.
    """

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}
        self.num_calls: dict[str, int] = {}
        self.given: dict[str, Call] = {}
        self.named: dict[str, None] = {}
        self.imported: dict[str, None] = {}
        self._left = MAX_ARGUMENTS

    def add_name(self, name: Global) -> None:
        """Keep a name that is looked up, where that or its use does something."""
        if runs_on_import(name.module):
            _keep(self.imported, name.module, None)
        elif name.dotted != _GETATTR and not is_method(name) and runs_something(name.dotted):
            _keep(self.named, name.dotted, None)

    def add_call(self, call: Call) -> None:
        """Keep a call and what it implies; raise CheckpointError when all calls together are given too much."""
        self._add([call])

    def add_state(self, target: Call) -> None:
        """Keep the calls that an object would make of the functions that its state brings."""
        self._add(implied_by_state(target))

    def _add(self, calls: list[Call]) -> None:
        for depth in range(_MAX_IMPLIED):
            if not calls:
                return
            for call in calls:
                name = call.name if depth < _MAX_IMPLIED - 1 else ""
                name = name if name in self.num_calls or len(self.num_calls) < _MAX_NAMES else ""
                self.num_calls[name] = self.num_calls.get(name, 0) + 1
                self.calls.setdefault(name, []).append(call)
                self._look_at_arguments(call)
            calls = [inner for call in calls for inner in implied_calls(call)]

    def _look_at_arguments(self, call: Call) -> None:
        """Keep what would run something and is given to a function that may call it."""
        if is_known(call.name):
            return
        for item in self._names_in([*call.arguments, call.keywords]):
            if item.dotted == LOAD_FROM_BYTES or runs_something(item.dotted):
                _keep(self.given, item.dotted, call)

    def _names_in(self, values: list[Any]) -> Iterator[Global]:
        """Yield the names in containers, and in calls that make containers."""
        seen: set[int] = set()
        while values:
            value = values.pop()
            self._left -= 1
            if self._left < 0:
                raise CheckpointError(
                    f"The calls of its pickle are given more than {MAX_ARGUMENTS} values, which gnomon refuses."
                )
            if isinstance(value, Global):
                yield value
            elif id(value) not in seen:
                inside = _inside(value)
                if inside:
                    seen.add(id(value))
                    values += inside


def _inside(value: Any) -> list[Any]:
    """Return what a container holds; nothing for anything else, and for calls that are kept by themselves."""
    if isinstance(value, list | tuple):
        return list(value)
    if isinstance(value, Members):
        return value.items
    if isinstance(value, Pairs):
        return [part for pair in value.items for part in pair]
    if isinstance(value, Call) and is_known(value.name):
        pairs = (part for pair in value.pairs or () for part in pair)
        return [*value.arguments, value.keywords, value.state, *(value.items or ()), *pairs]
    return []


def _keep(kept: dict[str, Any], name: str, value: Any) -> None:
    if len(kept) < _MAX_NAMES:
        kept.setdefault(name, value)
