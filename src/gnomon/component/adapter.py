"""`Adapter`: rearranges what one step returns into what the next one takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.component.base import Component
from gnomon.errors import PipelineError

_INPUT = re.compile(r"INPUT_ARG#(.*)", re.DOTALL)


class Adapter(Component):
    """Returns one value per item of `policy`: input k for `"INPUT_ARG#k"` (from 0), and any other item as it is.

    `policy=["INPUT_ARG#2", "INPUT_ARG#0", 7]` turns the inputs (a, b, c) into (c, a, 7). Inputs may also be named
    within lists, tuples and the values of mappings: `[{"x": "INPUT_ARG#0"}]` turns (a,) into ({"x": a},).
    """

    def __init__(self, policy: Sequence[Any]) -> None:
        if isinstance(policy, str) or not isinstance(policy, Sequence):
            raise PipelineError(f"policy is {policy!r}; give a list such as ['INPUT_ARG#1', 'INPUT_ARG#0'].")
        self.policy = [_parse(item) for item in policy]
        self._needed = 1 + max(_indices(self.policy), default=-1)

    def execute(self, *inputs: Any) -> tuple[Any, ...]:
        """Return the values that the policy names; raise PipelineError for an input that was not given."""
        if self._needed > len(inputs):
            raise PipelineError(
                f"The policy of {self.name} uses INPUT_ARG#{self._needed - 1}, so it needs {self._needed} inputs, but "
                f"it was given {len(inputs)} (counted from 0). Correct the policy, or what the step before returns."
            )
        return tuple(_fill(item, inputs) for item in self.policy)


@dataclass(frozen=True)
class _Input:
    """Stands for an input."""

    index: int


def _parse(item: Any) -> Any:
    """Return an item of a policy with an `_Input` for each `"INPUT_ARG#k"` in it."""
    if type(item) in (list, tuple):
        return type(item)(_parse(each) for each in item)
    if type(item) is dict:
        return {key: _parse(value) for key, value in item.items()}
    match = _INPUT.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        return item
    if not match[1].isdecimal():
        raise PipelineError(f"'{item}' in a policy has no number from 0 after the '#'. Write INPUT_ARG#0, INPUT_ARG#1.")
    return _Input(int(match[1]))


def _indices(item: Any) -> Iterator[int]:
    """Yield the number of every input in a parsed item."""
    if isinstance(item, _Input):
        yield item.index
    elif type(item) in (list, tuple, dict):
        for each in item.values() if type(item) is dict else item:
            yield from _indices(each)


def _fill(item: Any, inputs: tuple[Any, ...]) -> Any:
    """Return a parsed item with the inputs in their places."""
    if isinstance(item, _Input):
        return inputs[item.index]
    if type(item) in (list, tuple):
        return type(item)(_fill(each, inputs) for each in item)
    if type(item) is dict:
        return {key: _fill(value, inputs) for key, value in item.items()}
    return item
