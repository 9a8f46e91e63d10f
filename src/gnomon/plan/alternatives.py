"""The nearest layouts that fit, where the one that was asked for does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from gnomon.errors import GnomonError
from gnomon.plan.estimate import Alternative, Estimate
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload

SHOWN = 3
MOST_TIMES_THE_RANKS = 256
Planner = Callable[[ModelSpec, ClusterSpec, Layout, Workload], Estimate]


class Change(NamedTuple):
    """One setting with another value; `layout` says whose it is, `follows` that it keeps the ranks as many."""

    name: str
    value: Any
    layout: bool = True
    follows: bool = False


def nearest_fitting(estimate: Estimate, planner: Planner) -> tuple[Alternative, ...]:
    """Return up to three layouts of the same batch that fit, those with the fewest changes first.

    Tried are more recomputation, smaller micro-batches, higher ZeRO stages, more expert parallelism, and two to eight
    times the tensor or pipeline parallelism for less data parallelism, alone and together; of equally many changes the
    faster is first. Where none of the same ranks fits, twice as many ranks are tried, four times, and so on.
    """
    found = _fitting(estimate, _ordered(_choices(estimate)), estimate.cluster, planner)
    factor = 2
    while not found and factor <= MOST_TIMES_THE_RANKS:
        cluster = _with_room(estimate, factor)
        found = _fitting(estimate, _ordered(_more_ranks(estimate, factor, cluster)), cluster, planner)
        factor *= 2
    return tuple(sorted(found, key=lambda a: (len(a.changes), a.step_time_s))[:SHOWN])


def _fitting(
    estimate: Estimate, ordered: Iterable[tuple[int, tuple[Change, ...]]], cluster: ClusterSpec, planner: Planner
) -> list[Alternative]:
    """Return the first that fit, with all that have as many changes as the last of them."""
    found: list[Alternative] = []
    more = {} if cluster is estimate.cluster else {"num_nodes": cluster.num_nodes}
    most = math.inf
    for count, changes in ordered:
        if len(found) >= SHOWN and count > most:
            break
        other = _tried(estimate, changes, cluster, planner)
        if other is not None and other.fits and not _needless(changes, other, found):
            most = count
            found.append(
                Alternative(
                    changes={**more, **{c.name: c.value for c in changes if not c.follows}},
                    layout=other.layout,
                    workload=other.workload,
                    step_time_s=other.step_time_s,
                    peak_memory_bytes=other.memory.total_bytes,
                )
            )
    return found


def _needless(changes: tuple[Change, ...], other: Estimate, found: list[Alternative]) -> bool:
    """Return whether fewer of these changes fit too and are as fast."""
    settings = {(change.name, change.value) for change in changes}
    return any(
        settings >= {item for item in one.changes.items() if item[0] != "num_nodes"}
        and other.step_time_s >= one.step_time_s
        for one in found
    )


def _with_room(estimate: Estimate, factor: int) -> ClusterSpec:
    """Return the cluster with as many nodes as `factor` times the ranks need."""
    cluster = estimate.cluster
    nodes = math.ceil(factor * estimate.layout.num_ranks / cluster.accelerators_per_node)
    return cluster if nodes <= cluster.num_nodes else cluster.model_copy(update={"num_nodes": nodes})


def _choices(estimate: Estimate) -> list[list[tuple[Change, ...]]]:
    """Return for each setting its other values, no change first."""
    layout, workload, moe = estimate.layout, estimate.workload, estimate.model.moe
    split: list[tuple[Change, ...]] = [()]
    for name in ("tp", "pp"):
        for factor in (2, 4, 8):
            if layout.dp % factor == 0:
                kept = Change("dp", layout.dp // factor, follows=True)
                split.append((Change(name, getattr(layout, name) * factor), kept))
    experts = [layout.ep * factor for factor in (2, 4, 8) if moe and moe.num_experts % (layout.ep * factor) == 0]
    return [*_savings(layout, workload), [(), *((Change("ep", ep),) for ep in experts)], split]


def _savings(layout: Layout, workload: Workload) -> list[list[tuple[Change, ...]]]:
    """Return what saves memory with the same degrees of parallelism."""
    modes = ("none", "selective", "per_op", "products", "full")
    more = [mode for mode in modes[modes.index(layout.recompute) + 1 :] if mode in ("selective", "full")]
    smaller = [m for m in (8, 4, 2, 1) if m < workload.micro_batch and workload.global_batch % m == 0]
    stages = range(layout.zero_stage + 1, 4) if layout.dp * layout.cp > 1 else ()
    return [
        [(), *((Change("recompute", mode),) for mode in more)],
        [(), *((Change("micro_batch", size, layout=False),) for size in smaller)],
        [(), *((Change("zero_stage", stage),) for stage in stages)],
    ]


def _more_ranks(estimate: Estimate, factor: int, cluster: ClusterSpec) -> list[list[tuple[Change, ...]]]:
    """Return the ways to have `factor` times the ranks, and what saves memory beside them."""
    layout, splits = estimate.layout, []
    for tp, pp in product((1, 2, 4, 8), [1 << i for i in range(factor.bit_length())]):
        dp, rest = divmod(factor, tp * pp)
        degrees = {"tp": layout.tp * tp, "pp": layout.pp * pp, "dp": layout.dp * dp}
        if rest or not dp or degrees["tp"] > max(layout.tp, cluster.accelerators_per_node):
            continue
        splits.append(tuple(Change(n, value) for n, value in degrees.items() if value != getattr(layout, n)))
    stages = [(), *((Change("zero_stage", stage),) for stage in (1, 3) if stage > layout.zero_stage)]
    full: list[tuple[Change, ...]] = [(), (Change("recompute", "full"),)]
    single: list[tuple[Change, ...]] = [(), (Change("micro_batch", 1, layout=False),)]
    return [
        splits,
        stages,
        full if layout.recompute != "full" else [()],
        single if estimate.workload.micro_batch > 1 else [()],
    ]


def _ordered(choices: list[list[tuple[Change, ...]]]) -> Iterator[tuple[int, tuple[Change, ...]]]:
    """Yield every combination of changes, the fewest first."""
    combinations = [tuple(change for part in combination for change in part) for combination in product(*choices)]
    for changes in sorted(combinations, key=_count):
        if changes:
            yield _count(changes), changes


def _count(changes: tuple[Change, ...]) -> int:
    return sum(not change.follows for change in changes)


def _tried(estimate: Estimate, changes: tuple[Change, ...], cluster: ClusterSpec, planner: Planner) -> Estimate | None:
    """Return the estimate with these changes, None when it cannot run."""
    layout, workload = estimate.layout.to_mapping(), estimate.workload.to_mapping()
    for change in changes:
        (layout if change.layout else workload)[change.name] = change.value
    try:
        return planner(
            estimate.model,
            cluster,
            Layout.from_mapping(layout, where="layout"),
            Workload.from_mapping(workload),
        )
    except GnomonError:
        return None
