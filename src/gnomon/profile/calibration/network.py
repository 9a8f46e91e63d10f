"""Micro-benchmarks of collectives by size, and of how much of one hides behind computation."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from gnomon.profile.calibration.stopwatch import Stopwatch
from gnomon.spec import CollectiveCurve, SizeCurve

SIZES_BYTES = (2**12, 2**16, 2**18, 2**20, 2**22, 25 * 2**20)
OVERLAP_BYTES = 4 * 2**20
# torch 2.13 renamed them; the old names still work before it
_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def collective_curves(watch: Stopwatch) -> dict[str, CollectiveCurve]:
    """Measure all-reduce, all-gather and reduce-scatter over all ranks; return {name: curve}."""
    return {name: _curve(watch, name) for name in ("all_reduce", "all_gather", "reduce_scatter")}


def _curve(watch: Stopwatch, name: str) -> CollectiveCurve:
    times = [watch.collective_time_s(name, _collective(name, size, watch.device)) for size in SIZES_BYTES]
    # the smallest message is all latency; the rest gives the bandwidth by size
    latency_s = times[0]
    sizes = SIZES_BYTES[1:]
    rates = tuple(
        size / max(elapsed - latency_s, 0.25 * elapsed) for size, elapsed in zip(sizes, times[1:], strict=True)
    )
    return CollectiveCurve(
        ranks=dist.get_world_size(), latency_s=latency_s, bandwidth=SizeCurve(size=tuple(map(float, sizes)), rate=rates)
    )


def _collective(name: str, size_bytes: int, device: torch.device) -> Callable[[], object]:
    ranks = dist.get_world_size()
    count = max(ranks, size_bytes // 4 // ranks * ranks)
    whole, part = torch.ones(count, device=device), torch.ones(count // ranks, device=device)
    if name == "all_reduce":
        return lambda: dist.all_reduce(whole, op=dist.ReduceOp.AVG if device.type == "cuda" else dist.ReduceOp.SUM)
    if name == "all_gather":
        return lambda: _GATHER(whole, part)
    return lambda: _SCATTER(part, whole)


def communication_overlap(watch: Stopwatch) -> float:
    """Return the share of an all-reduce that hides behind matrix products running at the same time (0 to 1)."""
    message = torch.ones(OVERLAP_BYTES // 4, device=watch.device)
    alone_s = watch.collective_time_s("overlap", lambda: dist.all_reduce(message))
    x = torch.randn(1024, 512, device=watch.device)
    weight = torch.randn(512, 512, device=watch.device)
    one_s = watch.time_s("overlap", lambda: x @ weight)
    products = max(1, round(2.0 * alone_s / one_s))

    def compute() -> None:
        for _ in range(products):
            torch.mm(x, weight)

    def both() -> None:
        handle = dist.all_reduce(message, async_op=True)
        compute()
        handle.wait()

    compute_s = watch.collective_time_s("overlap", compute)
    both_s = watch.collective_time_s("overlap", both)
    return float(min(1.0, max(0.0, (alone_s + compute_s - both_s) / alone_s)))
