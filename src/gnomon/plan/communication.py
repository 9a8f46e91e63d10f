"""Time of collectives, and how much of it the step has to wait for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnomon.errors import PlanError
from gnomon.spec import ClusterSpec

Array = NDArray[np.float64]

DDP_FIRST_BUCKET_BYTES = 2**20
DDP_BUCKET_BYTES = 25 * 2**20


def ring_all_reduce_s(size_bytes: ArrayLike, ranks: ArrayLike, bandwidth: float, latency_s: float) -> Array:
    """Return the time of a ring all-reduce: 2 (n - 1) / n bytes over the link and 2 (n - 1) latencies.

    Patarasuk and Yuan, JPDC 69 (2009) 117. `bandwidth` in bytes/s per rank and direction.
    """
    n = np.asarray(ranks, dtype=np.float64)
    return 2.0 * (n - 1.0) / n * np.asarray(size_bytes, dtype=np.float64) / bandwidth + 2.0 * (n - 1.0) * latency_s


def all_reduce_s(cluster: ClusterSpec, size_bytes: ArrayLike, ranks: int) -> tuple[Array, str]:
    """Return the time of one all-reduce over `ranks` neighbouring ranks, and where it comes from."""
    if ranks == 1:
        return np.zeros_like(np.asarray(size_bytes, dtype=np.float64)), "one rank: nothing to reduce"
    measured = cluster.efficiency.collectives.get("all_reduce") if cluster.efficiency else None
    if measured is not None and measured.ranks == ranks:
        return measured.time_s(size_bytes), "measured all-reduce by size"
    tier = cluster.tier_for(ranks)
    if tier is None:
        raise PlanError(
            f"dp={ranks} needs a network that connects {ranks} accelerators; "
            f"'{cluster.name}' has tiers for {[t.span for t in cluster.tiers] or 'none'}. "
            "Add a network tier to the cluster, or choose a smaller dp."
        )
    time = ring_all_reduce_s(size_bytes, ranks, tier.bandwidth_bytes_per_s, tier.latency_s)
    return time, f"ring over {tier.name}"


def gradient_buckets(gradient_bytes: float) -> list[float]:
    """Return DDP's bucket sizes in the order they are reduced (the first is small so that it starts early)."""
    buckets, left = [], gradient_bytes
    for capacity in (DDP_FIRST_BUCKET_BYTES, *[DDP_BUCKET_BYTES] * int(1 + gradient_bytes // DDP_BUCKET_BYTES)):
        if left <= 0:
            break
        buckets.append(min(left, float(capacity)))
        left -= capacity
    return buckets


def exposed_s(bucket_times_s: list[float], backward_s: ArrayLike, overlap: float) -> Array:
    """Return the seconds that the step waits for gradients.

    The last bucket is complete only when backward is, so nothing hides it; of the others, the share `overlap`
    hides, at most as long as backward lasts.
    """
    if not bucket_times_s:
        return np.zeros_like(np.asarray(backward_s, dtype=np.float64))
    *early, last = bucket_times_s
    hideable = np.minimum(sum(early), np.asarray(backward_s, dtype=np.float64))
    return last + sum(early) - overlap * hideable
