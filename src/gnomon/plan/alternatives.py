"""The nearest layouts that fit, where the one that was asked for does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple

from gnomon.errors import GnomonError
from gnomon.plan.estimate import Alternative, Estimate
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload

SHOWN = 3
Planner = Callable[[ModelSpec, ClusterSpec, Layout, Workload], Estimate]


class Change(NamedTuple):
    """One setting with another value; `layout` says whose setting it is."""

    name: str
    value: Any
    layout: bool = True


def nearest_fitting(estimate: Estimate, planner: Planner) -> tuple[Alternative, ...]:
    """Return up to three layouts of the same ranks and batch that fit, those with the fewest changes first.

    Tried are more recomputation, smaller micro-batches, higher ZeRO stages, and twice or four times the tensor or
    pipeline parallelism for less data parallelism, alone and together; of equally many changes the faster is first.
    """
    found: list[Alternative] = []
    for count, changes in _ordered(_choices(estimate.layout, estimate.workload)):
        if len(found) >= SHOWN and count > len(found[-1].changes):
            break
        other = _tried(estimate, changes, planner)
        if other is not None and other.fits:
            found.append(
                Alternative(
                    changes={change.name: change.value for change in changes},
                    layout=other.layout,
                    workload=other.workload,
                    step_time_s=other.step_time_s,
                    peak_memory_bytes=other.memory.total_bytes,
                )
            )
    return tuple(sorted(found, key=lambda a: (len(a.changes), a.step_time_s))[:SHOWN])


def _choices(layout: Layout, workload: Workload) -> list[list[Change | None]]:
    """Return for each setting its other values, None for leaving it as it is."""
    recompute = ("none", "selective", "full")
    more = recompute[recompute.index(layout.recompute) + 1 :]
    smaller = [m for m in (8, 4, 2, 1) if m < workload.micro_batch and workload.global_batch % m == 0]
    split: list[Change | None] = [None]
    for name in ("tp", "pp"):
        for factor in (2, 4, 8):
            if layout.dp % factor == 0:
                split.append(Change(name, getattr(layout, name) * factor))
    return [
        [None, *(Change("recompute", mode) for mode in more)],
        [None, *(Change("micro_batch", size, layout=False) for size in smaller)],
        [
            None,
            *(Change("zero_stage", stage) for stage in range(layout.zero_stage + 1, 4) if layout.dp * layout.cp > 1),
        ],
        split,
    ]


def _ordered(choices: list[list[Change | None]]) -> Iterator[tuple[int, tuple[Change, ...]]]:
    """Yield every combination of changes, the fewest first."""
    combinations = [tuple(c for c in combination if c is not None) for combination in product(*choices)]
    for changes in sorted(combinations, key=len):
        if changes:
            yield len(changes), changes


def _tried(estimate: Estimate, changes: tuple[Change, ...], planner: Planner) -> Estimate | None:
    """Return the estimate with these changes, None when it cannot run."""
    layout, workload = estimate.layout.to_mapping(), estimate.workload.to_mapping()
    for change in changes:
        if change.name in ("tp", "pp"):
            layout["dp"] = estimate.layout.dp * getattr(estimate.layout, change.name) // change.value
        (layout if change.layout else workload)[change.name] = change.value
    try:
        return planner(
            estimate.model,
            estimate.cluster,
            Layout.from_mapping(layout, where="layout"),
            Workload.from_mapping(workload),
        )
    except GnomonError:
        return None
