"""What the best layout would gain from better hardware: the same search on a changed cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import NonNegativeFloat

from gnomon.plan.search.run import search
from gnomon.spec import ClusterSpec, ModelSpec, Noun, Workload


class Gain(Noun):
    """One change of the hardware, the best step time with it, and how much faster that is."""

    change: str
    step_time_s: NonNegativeFloat
    speedup: NonNegativeFloat
    layout_changes: bool


def sensitivity(model: ModelSpec, cluster: ClusterSpec, workload: Workload, **settings: Any) -> tuple[Gain, ...]:
    """Return the gain of each change of `cluster`; `settings` are those of `search`."""
    settings = {**settings, "top": 1, "memory_limit_bytes": None}
    base = search(model, cluster, workload, **settings).best
    if not base:
        return ()
    gains = []
    for name, change in CHANGES.items():
        changed = change(cluster)
        if changed is None:
            continue
        best = search(model, changed, workload, **settings).best[0].candidate
        before = base[0].candidate
        gains.append(
            Gain(
                change=name,
                step_time_s=best.step_time_s,
                speedup=before.step_time_s / best.step_time_s,
                layout_changes=best.layout != before.layout,
            )
        )
    return tuple(gains)


def _twice_the_memory(cluster: ClusterSpec) -> ClusterSpec | None:
    memory = cluster.accelerator.memory_bytes
    return None if memory is None else _device(cluster, memory_bytes=2.0 * memory)


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
    "twice the memory": _twice_the_memory,
    "twice the memory bandwidth": _faster_memory,
    "1.5 times the peak FLOP/s": _faster_products,
    "8 times the accelerators in the innermost network": _wider_domain,
    "twice the bandwidth between nodes": _faster_network,
}
