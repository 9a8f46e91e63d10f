"""`Adapter`: rearranges what one step returns into what the next one takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gnomon.component.base import Component
from gnomon.errors import PipelineError

_INPUT = re.compile(r"INPUT_ARG#(.*)", re.DOTALL)


class Adapter(Component):
    """Returns one value per item of `policy`: input k for `"INPUT_ARG#k"` (from 0), and any other item as it is.

    `policy=["INPUT_ARG#2", "INPUT_ARG#0", 7]` turns the inputs (a, b, c) into (c, a, 7).
    """

    def __init__(self, policy: Sequence[Any]) -> None:
        if isinstance(policy, str) or not isinstance(policy, Sequence):
            raise PipelineError(f"policy is {policy!r}; give a list such as ['INPUT_ARG#1', 'INPUT_ARG#0'].")
        self.policy = [_parse(item) for item in policy]

    def execute(self, *inputs: Any) -> tuple[Any, ...]:
        """Return the values that the policy names; raise PipelineError for an input that was not given."""
        needed = 1 + max((index for index, _ in self.policy if index is not None), default=-1)
        if needed > len(inputs):
            raise PipelineError(
                f"The policy of {self.name} uses INPUT_ARG#{needed - 1}, so it needs {needed} inputs, but it was given "
                f"{len(inputs)} (counted from 0). Correct the policy, or what the step before returns."
            )
        return tuple(literal if index is None else inputs[index] for index, literal in self.policy)


def _parse(item: Any) -> tuple[int | None, Any]:
    """Return (k, None) for `"INPUT_ARG#k"` and (None, item) for anything else."""
    match = _INPUT.fullmatch(item) if isinstance(item, str) else None
    if match is None:
        return None, item
    if not match[1].isdecimal():
        raise PipelineError(f"'{item}' in a policy has no number from 0 after the '#'. Write INPUT_ARG#0, INPUT_ARG#1.")
    return int(match[1]), None
