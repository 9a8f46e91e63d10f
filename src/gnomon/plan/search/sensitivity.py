"""What the best layout would gain from better hardware: the same search on a changed cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import NonNegativeFloat

from gnomon.plan.search.result import Candidate
from gnomon.plan.search.run import Progress, search
from gnomon.spec import ClusterSpec, ModelSpec, Noun, Workload


class Gain(Noun):
    """One change of the hardware, the best step time with it, and how much faster that is."""

    change: str
    step_time_s: NonNegativeFloat
    speedup: NonNegativeFloat
    layout_changes: bool


def sensitivity(
    model: ModelSpec,
    cluster: ClusterSpec,
    workload: Workload,
    *,
    memory_limit_bytes: float | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> tuple[Gain, ...]:
    """Return the gain of each change of `cluster`; empty when nothing fits.

    memory_limit_bytes: peak memory that a rank may have, at most and by default the device's; twice the memory doubles
        this too
    progress: called with (candidates looked at, candidates in all), over all searches together
    settings: the others of `search`
    """
    limit = memory_limit_bytes or cluster.accelerator.memory_bytes
    tried = [("", cluster, limit), *_changed(cluster, limit)]
    found = []
    for step, (_, hardware, allowed) in enumerate(tried):
        shown = None if progress is None else _part(progress, step, len(tried))
        result = search(model, hardware, workload, **settings, top=1, memory_limit_bytes=allowed, progress=shown)
        if not result.best:
            return ()
        found.append(result.best[0].candidate)
    return tuple(_gain(name, found[0], after) for (name, _, _), after in zip(tried[1:], found[1:], strict=True))


def _changed(cluster: ClusterSpec, limit: float | None) -> list[tuple[str, ClusterSpec, float | None]]:
    """Return each change that the cluster can have: its name, the cluster with it, and what a rank may use there."""
    more = [] if limit is None else [("twice the memory", _device(cluster, memory_bytes=2.0 * limit), 2.0 * limit)]
    others = [(name, change(cluster)) for name, change in CHANGES.items()]
    return more + [(name, other, limit) for name, other in others if other is not None]


def _part(progress: Progress, step: int, steps: int) -> Progress:
    """Return what one of several searches of the same size reports to."""
    return lambda done, total: progress(step * total + done, steps * total)


def _gain(change: str, before: Candidate, after: Candidate) -> Gain:
    return Gain(
        change=change,
        step_time_s=after.step_time_s,
        speedup=before.step_time_s / after.step_time_s,
        layout_changes=after.layout != before.layout,
    )


def _faster_products(cluster: ClusterSpec) -> ClusterSpec:
    return _device(cluster, peak_flops={t: 1.5 * f for t, f in cluster.accelerator.peak_flops.items()})


def _faster_memory(cluster: ClusterSpec) -> ClusterSpec | None:
    rate = cluster.accelerator.memory_bandwidth_bytes_per_s
    return None if rate is None else _device(cluster, memory_bandwidth_bytes_per_s=2.0 * rate)


def _wider_domain(cluster: ClusterSpec) -> ClusterSpec | None:
    if len(cluster.tiers) < 2:
        return None
    inner, *outer = cluster.tiers
    span = min(8 * inner.span, outer[0].span - 1)
    return cluster.model_copy(update={"tiers": (inner.model_copy(update={"span": span}), *outer)})


def _faster_network(cluster: ClusterSpec) -> ClusterSpec | None:
    if len(cluster.tiers) < 2:
        return None
    inner, *outer = cluster.tiers
    faster = [t.model_copy(update={"bandwidth_bytes_per_s": 2.0 * t.bandwidth_bytes_per_s}) for t in outer]
    return cluster.model_copy(update={"tiers": (inner, *faster)})


def _device(cluster: ClusterSpec, **update: Any) -> ClusterSpec:
    return cluster.model_copy(update={"accelerator": cluster.accelerator.model_copy(update=update)})


CHANGES: dict[str, Callable[[ClusterSpec], ClusterSpec | None]] = {
    "twice the memory bandwidth": _faster_memory,
    "1.5 times the peak FLOP/s": _faster_products,
    "8 times the accelerators in the innermost network": _wider_domain,
    "twice the bandwidth between nodes": _faster_network,
}
