"""`search`: every layout of a space evaluated, the best kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.errors import PlanError
from gnomon.plan.checks import check_imbalance, check_sequence, check_sizes
from gnomon.plan.planner import plan
from gnomon.plan.search.batch import Batch, Evaluator
from gnomon.plan.search.collect import Best, Front
from gnomon.plan.search.explain import compare
from gnomon.plan.search.result import Candidate, Objective, Ranked, SearchResult
from gnomon.plan.search.space import OUTER, SearchSpace, default_space
from gnomon.spec import ClusterSpec, ModelSpec, Workload
from gnomon.units import format_bytes

CANDIDATES_PER_BLOCK = 4_000_000  # whose states are priced together
SECONDS_PER_HOUR = 3600.0
Progress = Callable[[int, int], None]


def search(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: Workload,
    *,
    space: SearchSpace | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    accelerators: Sequence[int] | None = None,
    objective: Objective = "step_time",
    top: int = 10,
    memory_limit_bytes: float | None = None,
    price_per_accelerator_hour: float | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """Return the best layouts of `workload`'s batch on 1 or several numbers of accelerators.

    space: which layouts; default `default_space` of each number of accelerators, with the values of `axes` in place
        of its own
    accelerators: default all of the cluster
    memory_limit_bytes: peak memory that a rank may have, at most and by default the device's
    progress: called with (candidates looked at, candidates in all)
    Raises PlanError when nothing of the space can run, or for a limit above what the device has.
    """
    began = time.perf_counter()
    check_sizes(workload)
    check_sequence(model, workload)
    check_imbalance(model, workload.expert_imbalance, workload.capacity_factor)
    numbers = sorted(set(accelerators or [cluster.num_accelerators]))
    _check_accelerators(numbers, cluster)
    limit = _limit(memory_limit_bytes, cluster)
    spaces = {n: space or _space(model, cluster, workload, n, axes or {}) for n in numbers}
    _check_offloading(spaces.values(), cluster)
    total, done = sum(s.size for s in spaces.values()), 0
    rejected: Counter[str] = Counter()
    found: list[Candidate] = []
    evaluated = fitting = 0
    for count, one in spaces.items():
        evaluator = Evaluator(model, cluster, workload, one, count)
        best, front = Best(top, by_memory=objective == "memory"), Front()
        for start, stop in _blocks(one):
            for batch in evaluator.batches(start, stop):
                evaluated += batch.numbers.size
                fitting += _collect(batch, limit, best, front)
            done += (stop - start) * one.count(OUTER)
            if progress is not None:
                progress(done, total)
        rejected.update(evaluator.rejected)
        rows = sorted({*best.rows(), *front.rows()})
        found += [_candidate(one, count, workload, price_per_accelerator_hour, *row) for row in rows]
    seconds = time.perf_counter() - began
    if evaluated == 0:
        raise PlanError(_nothing(rejected))
    if evaluated > fitting:
        rejected["does not fit the memory"] = evaluated - fitting
    ranked = sorted(found, key=lambda c: (_value(c, objective), c.num_accelerators, c.number))[:top]
    return SearchResult(
        model=model,
        cluster=cluster,
        objective=objective,
        accelerators=tuple(numbers),
        num_candidates=total,
        num_evaluated=evaluated,
        num_fitting=fitting,
        rejected=rejected,
        best=_explained(model, cluster, ranked, objective),
        pareto=_pareto(found),
        seconds=seconds,
    )


def _space(
    model: ModelSpec, cluster: ClusterSpec, workload: Workload, number: int, axes: Mapping[str, Sequence[Any]]
) -> SearchSpace:
    default = default_space(model, number, cluster.accelerators_per_node, workload.global_batch)
    return SearchSpace.from_mapping({**default.to_mapping(), **axes}, where="--axis") if axes else default


def _check_accelerators(numbers: Sequence[int], cluster: ClusterSpec) -> None:
    for number in numbers:
        if not 1 <= number <= cluster.num_accelerators:
            raise PlanError(
                f"accelerators={number}, but '{cluster.name}' has {cluster.num_accelerators}. "
                f"Choose from 1 to {cluster.num_accelerators}, or set num_nodes on the cluster."
            )


def _limit(asked: float | None, cluster: ClusterSpec) -> float:
    """Return the peak memory that a rank may have; raise PlanError for more than the device has."""
    device = cluster.accelerator
    if asked is None:
        return device.memory_bytes or np.inf
    if device.memory_bytes is not None and asked > device.memory_bytes:
        has = format_bytes(device.memory_bytes)
        raise PlanError(
            f"The memory limit is {format_bytes(asked)}, but '{device.name}' has {has}. "
            f"Set at most {has}, or leave the limit out."
        )
    return asked


def _check_offloading(spaces: Iterable[SearchSpace], cluster: ClusterSpec) -> None:
    axes = ("offload_activations", "offload_optimizer")
    asked = next((axis for space in spaces for axis in axes if max(getattr(space, axis)) > 0), None)
    if asked and cluster.accelerator.host_bandwidth_bytes_per_s is None:
        raise PlanError(
            f"The axis {asked} moves data to the host, but the bandwidth between '{cluster.accelerator.name}' and its "
            f"host is unknown. Leave {asked} at 0, or describe the accelerator with host_bandwidth_bytes_per_s."
        )


def _blocks(space: SearchSpace) -> list[tuple[int, int]]:
    """Return ranges of states with about CANDIDATES_PER_BLOCK candidates each."""
    length = max(1, CANDIDATES_PER_BLOCK // space.count(OUTER))
    return [(start, min(start + length, space.num_states)) for start in range(0, space.num_states, length)]


def _collect(batch: Batch, limit: float, best: Best, front: Front) -> int:
    """Put the candidates that fit into the collections; return how many fit."""
    shape = batch.numbers.shape
    memory = np.broadcast_to(batch.evaluation.peak_memory_bytes, shape)
    fits = memory <= limit
    times = np.broadcast_to(batch.evaluation.step_time_s, shape)[fits]
    numbers, memory = batch.numbers[fits], memory[fits]
    best.add(times, memory, numbers)
    front.add(times, memory, numbers)
    return int(numbers.size)


def _candidate(
    space: SearchSpace,
    count: int,
    workload: Workload,
    price: float | None,
    step_time_s: float,
    peak_memory_bytes: float,
    number: int,
) -> Candidate:
    layout, asked = space.layout(number, count, workload)
    hours = step_time_s * count / SECONDS_PER_HOUR
    return Candidate(
        num_accelerators=count,
        number=number,
        layout=layout,
        workload=asked,
        step_time_s=step_time_s,
        peak_memory_bytes=peak_memory_bytes,
        accelerator_hours_per_step=hours,
        cost_per_step=None if price is None else hours * price,
    )


def _value(candidate: Candidate, objective: Objective) -> float:
    if objective == "memory":
        return candidate.peak_memory_bytes
    return candidate.accelerator_hours_per_step if objective == "cost" else candidate.step_time_s


def _explained(
    model: ModelSpec, cluster: ClusterSpec, ranked: list[Candidate], objective: Objective
) -> tuple[Ranked, ...]:
    estimates = [plan(model, cluster, c.layout, c.workload) for c in ranked]
    rows = []
    for candidate, estimate in zip(ranked, estimates, strict=True):
        slower, why = compare(estimate, estimates[0], objective)
        rows.append(Ranked(candidate=candidate, estimate=estimate, slower_s=slower, why=why))
    return tuple(rows)


def _pareto(found: list[Candidate]) -> tuple[Candidate, ...]:
    """Return the candidates that no other beats in time, memory and accelerator-hours together, by time."""
    kept: list[Candidate] = []
    for candidate in sorted(found, key=lambda c: (c.step_time_s, c.peak_memory_bytes, c.accelerator_hours_per_step)):
        beaten = any(
            k.peak_memory_bytes <= candidate.peak_memory_bytes
            and k.accelerator_hours_per_step <= candidate.accelerator_hours_per_step
            for k in kept
        )
        if not beaten:
            kept.append(candidate)
    return tuple(kept)


def _nothing(rejected: dict[str, int]) -> str:
    reasons = "; ".join(f"{reason}: {count}" for reason, count in sorted(rejected.items(), key=lambda r: -r[1])[:4])
    return f"No layout of the search space can run ({reasons}). Allow more values on an axis, or change the batch."
