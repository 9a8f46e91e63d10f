"""Evaluate many candidates: what their layers and states cost is priced once per distinct one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array, take
from gnomon.plan.cases import RECOMPUTES, Cases
from gnomon.plan.evaluate import Evaluation, compose
from gnomon.plan.layer_work import LayerWork, layer_work
from gnomon.plan.search.feasible import rejections
from gnomon.plan.search.space import INNER, OUTER, STATE, Integers, SearchSpace
from gnomon.plan.state_work import StateWork, state_work
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_stack
from gnomon.spec.layout import SCHEDULES


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The candidates of one block that can run: their numbers and what they cost."""

    numbers: Integers
    evaluation: Evaluation | None
    rejected: dict[str, int]


class Evaluator:
    """Prices blocks of candidates of one model, cluster, batch and number of accelerators."""

    def __init__(
        self, model: ModelSpec, cluster: ClusterSpec, workload: Workload, space: SearchSpace, num_ranks: int
    ) -> None:
        self.model, self.cluster, self.workload = model, cluster, workload
        self.space, self.num_ranks = space, num_ranks
        single = workload.model_copy(update={"micro_batch": 1})
        self.template = Cases.of(model, cluster, Layout(), single, load_stack(workload.stack))
        self.states_per_layer = int(np.prod([len(getattr(space, axis)) for axis in STATE]))
        self.rest = int(np.prod([len(getattr(space, axis)) for axis in OUTER]))

    def block(self, start: int, stop: int) -> Batch:
        """Return the candidates number `start` to `stop` - 1 that can run, evaluated."""
        numbers = np.arange(start, stop, dtype=np.int64)
        digits = self.space.digits(numbers)
        alive, rejected = rejections(
            self._axes(digits), self.model, self.cluster, self.workload, self.num_ranks
        )
        numbers = numbers[alive]
        if numbers.size == 0:
            return Batch(numbers=numbers, evaluation=None, rejected=rejected)
        digits = {axis: place[alive] for axis, place in digits.items()}
        state_number = numbers // self.rest
        layer, state = self._shared(state_number)
        return Batch(numbers=numbers, evaluation=compose(self._cases(digits), layer, state), rejected=rejected)

    def _shared(self, state_number: Integers) -> tuple[LayerWork, StateWork]:
        """Return the costs of layers and states of candidates, each priced once."""
        states, which = _distinct(state_number)
        layers, of_state = _distinct(states // self.states_per_layer)
        state = state_work(self._cases(self.space.digits(states * self.rest)))
        layer = layer_work(self._cases(self.space.digits(layers * self.states_per_layer * self.rest)))
        layer = replace(layer, operators=())
        state = replace(state, operators=())
        return _gather(layer, of_state[which], layers.size), _gather(state, which, states.size)

    def _axes(self, digits: Mapping[str, Integers]) -> dict[str, Integers]:
        space = self.space
        axes = {
            axis: np.asarray([int(v) for v in getattr(space, axis)], dtype=np.int64)[digits[axis]]
            for axis in (*INNER, *STATE)
        }
        codes = np.asarray([SCHEDULES.index(s) for s in space.schedule], dtype=np.int64)
        axes["schedule"] = codes[digits["schedule"]]
        axes["two_sequence_choices"] = np.asarray(len(space.sequence_parallel) > 1)
        return axes

    def _cases(self, digits: Mapping[str, Integers]) -> Cases:
        """Return the candidates as cases; an axis of one value stays an array of one."""
        space, template = self.space, self.template

        def values(axis: str, choices: list[float]) -> Array:
            table = np.asarray(choices, dtype=np.float64)
            return table if table.size == 1 else table[digits[axis]]

        plain = {axis: values(axis, [float(v) for v in getattr(space, axis)]) for axis in _PLAIN}
        dp = self.num_ranks / (plain["tp"] * plain["pp"] * plain["cp"])
        parallel = values("sequence_parallel", [float(v) for v in space.sequence_parallel])
        split = replace(
            template.split,
            **plain,
            dp=dp,
            sequence_parallel=parallel * (plain["tp"] > 1),
            schedule=values("schedule", [float(SCHEDULES.index(s)) for s in space.schedule]),
            recompute=values("recompute", [float(RECOMPUTES.index(r.mode)) for r in space.recompute]),
            recompute_share=values("recompute", [r.share for r in space.recompute]),
            shard_ranks=dp * plain["cp"],
        )
        micro_batch = values("micro_batch", [float(m) for m in space.micro_batch])
        accumulation = self.workload.global_batch / (dp * micro_batch)
        return replace(template, split=split, micro_batch=micro_batch, accumulation=accumulation)


T = TypeVar("T")
_PLAIN = ("tp", "cp", "ep", "expert_tp", *STATE, "offload_activations", "offload_optimizer")


def _distinct(ordered: Integers) -> tuple[Integers, NDArray[np.intp]]:
    """Return the distinct values of a sorted array, and the place of each entry's value among them."""
    first = np.empty(ordered.shape, dtype=np.bool_)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first], np.cumsum(first) - 1


def _gather(item: T, index: NDArray[np.intp], count: int) -> T:
    return item if count == 1 else take(item, index)
