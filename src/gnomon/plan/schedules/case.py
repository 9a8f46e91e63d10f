"""What the closed forms know about a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """Seconds of one micro-batch over all chunks of one rank; recomputation is part of `backward_input`."""

    forward: Array
    backward_input: Array
    backward_weight: Array

    @property
    def backward(self) -> Array:
        """Both gradients, in seconds."""
        return self.backward_input + self.backward_weight

    @property
    def total(self) -> Array:
        """Forward and both gradients, in seconds."""
        return self.forward + self.backward_input + self.backward_weight

    def at(self, columns: Integers) -> StageTimes:
        """Return the times of some of the pipelines."""
        forward, backward, weight = (x[:, columns] for x in (self.forward, self.backward_input, self.backward_weight))
        return StageTimes(forward=forward, backward_input=backward, backward_weight=weight)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Pipelines of more than one rank, a column each: floats of shape (1, pipelines), times (cases, pipelines)."""

    pp: Array
    vpp: Array
    num_microbatches: Array
    first: StageTimes
    middle: StageTimes
    last: StageTimes
    send_s: Array

    @property
    def sends_s(self) -> Array:
        """What a transfer takes, and zero, in seconds, of shape (2, 1, pipelines): one formula gives both steps."""
        return np.stack([self.send_s, np.zeros_like(self.send_s)])

    def at(self, columns: Integers) -> Case:
        """Return some of the pipelines."""
        return Case(
            **{name: getattr(self, name)[:, columns] for name in ("pp", "vpp", "num_microbatches", "send_s")},
            **{name: getattr(self, name).at(columns) for name in ("first", "middle", "last")},
        )


def largest(*candidates: Array) -> Array:
    """Return the elementwise largest: a step takes as long as its longest chain of operations."""
    result = candidates[0]
    for candidate in candidates[1:]:
        result = np.maximum(result, candidate)
    return result


def when(condition: NDArray[np.bool_], value: Array) -> Array:
    """Return the value where a chain exists, and minus infinity where it does not."""
    return np.where(condition, value, -np.inf)


class Duration(NamedTuple):
    """How long a step takes: over all ranks, and for the rank that takes longest from its first pass to its last.

    `total_s` has shape (2, cases, pipelines): with transfers, and with free ones.
    """

    total_s: Array
    unsynchronised_s: Array


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """The formulas of one schedule over arrays.

    `duration` and `slowest_s` (what the busiest rank computes for one micro-batch) hold for pp > 1; `in_flight` takes
    (pp, vpp, num_microbatches, rank), `supported` the first three, and `needs` says its condition in words.
    """

    duration: Callable[[Case], Duration]
    slowest_s: Callable[[Case], Array]
    in_flight: Callable[[Any, Any, Any, Any], Array]
    supported: Callable[[Any, Any, Any], NDArray[np.bool_]]
    needs: str


def slowest_stage_s(case: Case) -> Array:
    """Return what the slowest stage computes for one micro-batch, one stage per rank."""
    return largest(case.first.total, case.last.total, when(case.pp > 2, case.middle.total))
