"""Evaluate many candidates: what their layers and states cost is priced once per distinct one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array, take
from gnomon.plan.cases import RECOMPUTES, Cases
from gnomon.plan.evaluate import Evaluation, compose
from gnomon.plan.layer_work import layer_work
from gnomon.plan.search.feasible import plain_values, rejections, run_rules, state_rules
from gnomon.plan.search.space import OUTER, RUN, SHARED, STATE, Integers, SearchSpace
from gnomon.plan.stages import DUALPIPE, FOLDED
from gnomon.plan.state_work import StateWork, state_work
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_stack
from gnomon.spec.layout import SCHEDULES

CANDIDATES_TOGETHER = 32_768  # evaluated at once: their intermediate arrays stay in the cache
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Candidates that can run, of one schedule: what is computed again and offloaded down, states across.

    `numbers` has shape (runs, states), the longer axis last; the evaluation's arrays broadcast to it.
    """

    numbers: Integers
    evaluation: Evaluation


class Evaluator:
    """Prices candidates of one model, cluster, batch and number of accelerators.

    Layers and states are priced once for all candidates that share them; what differs between candidates of one state
    is an axis of its own, so that most of the arithmetic happens once per state. `rejected` counts those that cannot
    run, by reason, of all ranges that were asked for.
    """

    def __init__(
        self, model: ModelSpec, cluster: ClusterSpec, workload: Workload, space: SearchSpace, num_ranks: int
    ) -> None:
        self.model, self.workload, self.space, self.num_ranks = model, workload, space, num_ranks
        single = workload.model_copy(update={"micro_batch": 1})
        self.template = Cases.of(model, cluster, Layout(), single, load_stack(workload.stack))
        self.runs = np.arange(space.count(RUN), dtype=np.int64)
        self.rejected: Counter[str] = Counter()

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yield the candidates of the states number `start` to `stop` - 1 that can run, evaluated."""
        space = self.space
        states = np.arange(start, stop, dtype=np.int64)
        axes = self._axes(space.digits(states, SHARED))
        alive, rejected = rejections(state_rules(axes, self.model, self.workload, self.num_ranks), states.size)
        self.rejected.update({reason: count * space.count(OUTER) for reason, count in rejected.items()})
        states = states[alive]
        if states.size == 0:
            return
        layers, of_state = _distinct(states // space.count(STATE))
        first = layers * space.count(STATE)
        layer = replace(layer_work(self._cases(space.digits(first, SHARED))), operators=())
        priced: dict[str, StateWork] = {}
        for place, schedule in enumerate(space.schedule):
            able = self._able(states, schedule)
            if able.size == 0:
                continue
            state = self._state(states, schedule, priced)
            for some in np.array_split(able, -(-able.size * self.runs.size // CANDIDATES_TOGETHER)):
                evaluation = compose(
                    self._runs(states[some], schedule), _rows(layer, of_state[some]), _rows(state, some)
                )
                numbers = (states[some] * len(space.schedule) + place) * self.runs.size + self.runs[:, None]
                yield Batch(numbers=numbers, evaluation=evaluation)

    def _state(self, states: Integers, schedule: str, priced: dict[str, StateWork]) -> StateWork:
        """Return the work of the states under a schedule; `priced` keeps it for those that place the model alike."""
        index = SCHEDULES.index(schedule)
        placement = "folded" if index in FOLDED else "twice" if index == DUALPIPE else "straight"
        if placement not in priced:
            cases = self._cases(self.space.digits(states, SHARED))
            scheduled = replace(cases.split, schedule=np.asarray([float(index)]))
            priced[placement] = replace(state_work(replace(cases, split=scheduled)), operators=())
        return priced[placement]

    def _able(self, states: Integers, schedule: str) -> NDArray[np.intp]:
        """Return the places of the states that a schedule can run; count the others."""
        axes = self._axes(self.space.digits(states, SHARED))
        micro_batches = self.workload.global_batch * axes["tp"] * axes["pp"] * axes["cp"]
        micro_batches = micro_batches // (self.num_ranks * axes["micro_batch"])
        axes["schedule"] = np.asarray(SCHEDULES.index(schedule))
        alive, failed = rejections(run_rules(axes, micro_batches), states.size)
        self.rejected.update({reason: number * self.runs.size for reason, number in failed.items()})
        return np.flatnonzero(alive)

    def _axes(self, digits: Mapping[str, Integers]) -> dict[str, Integers]:
        axes = {
            axis: np.asarray([int(v) for v in getattr(self.space, axis)], dtype=np.int64)[digits[axis]]
            for axis in SHARED
        }
        return axes | plain_values(self.space)

    def _runs(self, states: Integers, schedule: str) -> Cases:
        """Return the states as a row, with everything that one schedule may recompute and offload as a column."""
        cases = self._cases({axis: d[None, :] for axis, d in self.space.digits(states, SHARED).items()})
        digits = self.space.digits(self.runs, RUN)

        def column(axis: str, choices: list[float]) -> Array:
            return np.asarray(choices, dtype=np.float64)[digits[axis]][:, None]

        space = self.space
        split = replace(
            cases.split,
            schedule=np.asarray([float(SCHEDULES.index(schedule))]),
            recompute=column("recompute", [float(RECOMPUTES.index(r.mode)) for r in space.recompute]),
            recompute_share=column("recompute", [r.share for r in space.recompute]),
            offload_activations=column("offload_activations", list(space.offload_activations)),
            offload_optimizer=column("offload_optimizer", list(space.offload_optimizer)),
        )
        return replace(cases, split=split)

    def _cases(self, digits: Mapping[str, Integers]) -> Cases:
        """Return states as cases; an axis of one value is an array of one."""
        space, template = self.space, self.template
        plain = {
            axis: np.asarray([float(v) for v in getattr(space, axis)])[digits[axis].reshape(-1)].reshape(
                digits[axis].shape if len(getattr(space, axis)) > 1 else (1,)
            )
            for axis in SHARED
        }
        micro_batch = plain.pop("micro_batch")
        dp = self.num_ranks / (plain["tp"] * plain["pp"] * plain["cp"])
        plain["sequence_parallel"] = plain["sequence_parallel"] * (plain["tp"] > 1)
        split = replace(template.split, **plain, dp=dp, shard_ranks=dp * plain["cp"])
        accumulation = self.workload.global_batch / (dp * micro_batch)
        return replace(template, split=split, micro_batch=micro_batch, accumulation=accumulation)


def _distinct(ordered: Integers) -> tuple[Integers, NDArray[np.intp]]:
    """Return the distinct values of a sorted array, and the place of each entry's value among them."""
    first = np.empty(ordered.shape, dtype=np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first], np.cumsum(first) - 1


def _rows(item: T, index: NDArray[np.intp]) -> T:
    """Return the cases at `index`, each array as a row; arrays of one entry are kept."""
    return take(item, index[None, :])
