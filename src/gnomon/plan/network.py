"""Time of collectives over the network tiers that they really cross."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array, array
from gnomon.spec import MOST_TIERS, ClusterSpec

NUM_TIERS = MOST_TIERS
NONE = (array(0.0),) * NUM_TIERS


@dataclass(frozen=True, kw_only=True)
class Network:
    """Tiers from the innermost outwards; `bandwidth` in bytes/s per accelerator and direction, one array per tier.

    A cluster with fewer tiers repeats its last one. A span of zero means that nothing connects its accelerators.
    `neighbours` are those to whom direct links go, `axes` those of a torus of `size` accelerators; zero for a switch.
    """

    span: tuple[Array, ...]
    bandwidth: tuple[Array, ...]
    latency_s: tuple[Array, ...]
    neighbours: tuple[Array, ...] = NONE
    axes: tuple[Array, ...] = NONE
    size: tuple[Array, ...] = NONE

    @classmethod
    def of(cls, cluster: ClusterSpec) -> Network:
        """Return the network of `cluster` at the rates that its generation achieves."""
        tiers = list(cluster.tiers)
        if not tiers:
            none = (array(1.0),) * NUM_TIERS
            return cls(span=none, bandwidth=none, latency_s=(array(0.0),) * NUM_TIERS)
        inner, outer = (cluster.rates.link, cluster.rates.network) if cluster.rates else (1.0, 1.0)
        shares = [tier.achieved or (outer if place else inner) for place, tier in enumerate(tiers)]
        return cls(
            span=padded([array(t.span) for t in tiers]),
            bandwidth=padded([array(t.bandwidth_bytes_per_s * s) for t, s in zip(tiers, shares, strict=True)]),
            latency_s=padded([array(t.latency_s) for t in tiers]),
            neighbours=padded([array(t.neighbours or 0) for t in tiers]),
            axes=padded([array(t.torus_axes or 0) for t in tiers]),
            size=padded([array(min(t.span, cluster.num_accelerators)) for t in tiers]),
        )

    @property
    def distinct(self) -> range:
        """Places of the tiers before the last one is repeated."""
        count = NUM_TIERS
        while count > 1 and self.span[count - 1] is self.span[count - 2]:
            count -= 1
        return range(count)


def padded(tiers: list[Array]) -> tuple[Array, ...]:
    """Return as many entries as a `Network` has tiers: the last one as often as it takes."""
    return tuple(tiers) + (tiers[-1],) * (NUM_TIERS - len(tiers))


@dataclass(frozen=True, kw_only=True)
class Group:
    """The path of a ring over `ranks` ranks that are `stride` apart.

    A ring that leaves a domain of accelerators uses the network adapters of all its ranks in that domain, up to the
    bandwidth inside it: `bandwidth` is what one rank of the ring gets on the slowest tier. `steps_s` is the sum of
    the latencies around the ring, `tree_s` those along the deepest path of a tree.
    """

    ranks: Array
    bandwidth: Array
    steps_s: Array
    tree_s: Array


def links_share(network: Network, tier: int, ranks: Array, stride: Array) -> Array:
    """Return the part of an accelerator's links that go to others of a group of `ranks`, `stride` ranks apart.

    All of them through a switch; direct links to the members alone; in a torus those of the axes along which the group
    lies, where ranks fill one axis after the other (https://jax-ml.github.io/scaling-book/sharding/).
    """
    neighbours, axes = network.neighbours[tier], network.axes[tier]
    share = np.ones_like(ranks * stride)
    if np.any(neighbours):
        share = np.where(neighbours > 0, np.clip((ranks - 1.0) / np.maximum(neighbours, 1.0), 1e-9, 1.0), share)
    if np.any(axes):
        share = np.where(axes > 0, _axes_met(network, tier, ranks, stride) / np.maximum(axes, 1.0), share)
    return share


def _axes_met(network: Network, tier: int, ranks: Array, stride: Array) -> Array:
    """Return along how many axes of a torus a group lies: those that the ranks beside it do not fill, as it needs."""
    axes = np.maximum(network.axes[tier], 1.0)
    filled, needed = (_axes_of(network, tier, np.maximum(n, 1.0)) for n in (stride, stride * ranks))
    return np.asarray(np.clip(np.ceil(needed - 1e-9) - np.floor(filled + 1e-9), 1.0, axes))


def _axes_of(network: Network, tier: int, ranks: Array) -> Array:
    """Return how many axes so many ranks fill, the longest first; the sides of a torus are nearly equal powers of 2."""
    axes, whole = np.maximum(network.axes[tier], 1.0), np.log2(np.maximum(network.size[tier], 2.0))
    short = np.floor(whole / axes + 1e-9)
    longer = whole - axes * short  # axes of twice the length
    in_longer = longer * (short + 1.0)
    log = np.log2(ranks)
    rest = (log - in_longer) / np.maximum(short, 1e-9)
    return np.where(log <= in_longer + 1e-9, log / (short + 1.0), longer + rest)


def group(network: Network, ranks: Array, stride: Array) -> Group:
    """Return the path of a group of `ranks` ranks, `stride` ranks apart (broadcast)."""
    inside = np.ones_like(ranks * stride)
    bandwidth = np.full_like(inside, np.inf)
    steps_s, tree_s = np.zeros_like(inside), np.zeros_like(inside)
    for tier in network.distinct:
        span = network.span[tier]
        # the last tier connects everything; checks of the layout refuse what it cannot reach
        reach = ranks if tier == network.distinct[-1] else np.clip(np.floor(span / stride), 1.0, ranks)
        reach = np.maximum(reach, inside)
        crosses = reach > inside
        domains = np.ceil(reach / inside)
        rate = network.bandwidth[tier] * links_share(network, tier, reach, stride)
        bandwidth = np.where(crosses, np.minimum(bandwidth, inside * rate), bandwidth)
        steps_s = steps_s + (np.ceil(ranks / inside) - np.ceil(ranks / reach)) * network.latency_s[tier]
        tree_s = tree_s + np.where(crosses, np.log2(np.maximum(domains, 1.0)) * network.latency_s[tier], 0.0)
        inside = reach
    return Group(ranks=ranks, bandwidth=bandwidth, steps_s=steps_s, tree_s=tree_s)


def all_gather_s(size_bytes: Array, path: Group) -> Array:
    """Return the time to gather `size_bytes` (of the whole result) on every rank, or to reduce and scatter it.

    A ring moves (n - 1) / n of the result over each link (Patarasuk and Yuan, JPDC 69 (2009) 117).
    """
    n = path.ranks
    return np.where(n > 1, (n - 1.0) / n * size_bytes / path.bandwidth + path.steps_s, 0.0)


def all_reduce_s(size_bytes: Array, path: Group) -> Array:
    """Return the time of an all-reduce: twice the bytes of a gathering, the latency of ring or tree, if that is less.

    NCCL takes a tree for small messages and a ring for large ones; both move the same bytes.
    """
    n = path.ranks
    latency = 2.0 * np.minimum(path.steps_s, path.tree_s)
    return np.where(n > 1, 2.0 * (n - 1.0) / n * size_bytes / path.bandwidth + latency, 0.0)


def all_to_all_s(
    size_bytes: Array, network: Network, ranks: Array, stride: Array, copies: Array | float = 1.0
) -> Array:
    """Return the time in which every rank sends `size_bytes`, an equal part to each of `ranks` ranks.

    Each tier carries what leaves the domain inside it; the tiers work at the same time, so the slowest decides.
    With `copies` > 1 each element goes to that many ranks at random, and crosses to another domain only once however
    many of its copies go there: of D domains it reaches D (1 - (1 - 1 / D)^copies) (DeepSeek-V3, arXiv 2412.19437,
    section 3.2.2).
    """
    time, inside = np.zeros_like(size_bytes * ranks), np.ones_like(ranks * stride)
    latency = np.zeros_like(time)
    for tier in network.distinct:
        reach = ranks if tier == network.distinct[-1] else np.clip(np.floor(network.span[tier] / stride), 1.0, ranks)
        reach = np.maximum(reach, inside)
        domains = np.maximum(ranks / inside, 1.0)
        distinct = domains / copies * (1.0 - (1.0 - 1.0 / domains) ** copies)
        leaving = (reach - inside) / ranks * (distinct if tier else 1.0)
        rate = network.bandwidth[tier] * _exchange_share(network, tier, reach, stride)
        time = np.maximum(time, size_bytes * leaving / rate)
        latency = np.maximum(latency, np.where(leaving > 0, network.latency_s[tier], 0.0))
        inside = reach
    return np.where(ranks > 1, time + latency, 0.0)


def _exchange_share(network: Network, tier: int, ranks: Array, stride: Array) -> Array:
    """Return the part of an accelerator's links that is left to it when each of a group sends to each other.

    On a torus a message crosses a quarter of every axis on average, over links that all messages share: with `a` axes
    of n chips and two links each, n / 8 of the time that one link takes for what a chip sends.
    """
    share, axes = links_share(network, tier, ranks, stride), network.axes[tier]
    if not np.any(axes):
        return share
    side = np.maximum(ranks, 1.0) ** (1.0 / _axes_met(network, tier, ranks, stride))
    return np.where(axes > 0, np.minimum(share, 4.0 / (side * np.maximum(axes, 1.0))), share)


def _one_link(network: Network, tier: int) -> Array:
    """Return the part of an accelerator's links that go to one other."""
    neighbours, axes = network.neighbours[tier], network.axes[tier]
    return np.asarray(1.0 / np.maximum(np.maximum(neighbours, 2.0 * axes), 1.0))


def send_s(size_bytes: Array, network: Network, stride: Array, ranks: Array) -> Array:
    """Return the time to send `size_bytes` to the rank `stride` further on; zero when there is only one."""
    bandwidth, latency = network.bandwidth[-1] * _one_link(network, NUM_TIERS - 1), network.latency_s[-1]
    for tier in reversed(range(NUM_TIERS - 1)):
        within = stride * ranks <= network.span[tier]
        bandwidth = np.where(within, network.bandwidth[tier] * _one_link(network, tier), bandwidth)
        latency = np.where(within, network.latency_s[tier], latency)
    return np.where(ranks > 1, size_bytes / bandwidth + latency, 0.0)
