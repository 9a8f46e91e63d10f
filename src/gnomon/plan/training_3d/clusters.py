"""From `hardware.node_type` to a cluster with as many of those nodes as the layout needs."""

from __future__ import annotations

import math
from typing import NamedTuple

from gnomon.errors import CatalogError, LayoutError, did_you_mean
from gnomon.spec import AcceleratorSpec, ClusterSpec, DeviceRates, NetworkTier
from gnomon.spec._noun import FILE_SUFFIXES, names_file
from gnomon.spec.catalog import list_clusters
from gnomon.spec.resolve import resolve_cluster

# names that dlcalc gives to what the catalog has under another
ALIASES = {"u-p6e-gb300x72": "gb300-nvl72"}
# instance types of which one rank is one core of a chip
CORES_PER_CHIP = {"trn1n.32xlarge": 2}


class Nodes(NamedTuple):
    """A cluster, and what was assumed to make it."""

    cluster: ClusterSpec
    assumptions: tuple[str, ...]


def nodes_of(node_type: str, num_ranks: int, reach: int) -> Nodes:
    """Return as many nodes of `node_type` as `num_ranks` ranks need; its network connects `reach` of them (one site).

    Raises CatalogError with the nearest name for an unknown type, LayoutError when the ranks fill no whole nodes.
    """
    cluster = _resolve(node_type, num_ranks)
    assumptions: list[str] = []
    if node_type.lower() in CORES_PER_CHIP:
        cluster = _cores(cluster, CORES_PER_CHIP[node_type.lower()])
        assumptions.append("one rank is one core: half of a chip's FLOP/s, memory and bandwidths")
    if cluster.efficiency is None and cluster.rates is None:
        cluster = cluster.model_copy(update={"rates": _published_peaks(cluster.accelerator)})
        assumptions.append(
            f"what '{cluster.accelerator.name}' achieves of its published peaks is unknown; all of them are taken, "
            "so that the times are lower bounds (gnomon calibrate measures a machine)"
        )
    cluster = cluster.model_copy(update={"num_nodes": _num_nodes(cluster, num_ranks)})
    last = cluster.tiers[-1] if cluster.tiers else None
    if last is not None and 1 < last.span < reach:
        wider = last.model_copy(update={"span": reach})
        cluster = cluster.model_copy(update={"tiers": (*cluster.tiers[:-1], wider)})
        assumptions.append(f"{last.name} connects {reach} accelerators (its stated reach is {last.span})")
    if reach > 1 and cluster.tier_for(reach) is None:
        raise LayoutError(
            f"The layout needs {reach} connected accelerators, but '{cluster.name}' has no network tier. "
            "Add tiers to the cluster's file, or set every degree to 1."
        )
    return Nodes(cluster, tuple(assumptions))


def _resolve(node_type: str, num_ranks: int) -> ClusterSpec:
    name = node_type.lower()
    if names_file(node_type):
        return resolve_cluster(node_type, num_ranks)
    known = {*list_clusters(), *ALIASES}
    if name not in known:
        raise CatalogError(
            f"hardware.node_type is '{node_type}', which is no node of the catalog. {did_you_mean(name, known)} "
            f"A path to a cluster's file ends in {', '.join(FILE_SUFFIXES)} or has a '/'."
        )
    return resolve_cluster(ALIASES.get(name, name), num_ranks)


def _num_nodes(cluster: ClusterSpec, num_ranks: int) -> int:
    """Return the nodes that the ranks fill; raise LayoutError when they fill the last one in part."""
    size = cluster.accelerators_per_node
    if num_ranks > size and num_ranks % size:
        below, above = num_ranks // size * size, math.ceil(num_ranks / size) * size
        raise LayoutError(
            f"tp x cp x pp x dp = {num_ranks} accelerators do not fill whole nodes of {size} ('{cluster.name}'). "
            f"Choose degrees whose product is {below} or {above}, or at most {size}."
        )
    return math.ceil(num_ranks / size)


def _cores(cluster: ClusterSpec, per_chip: int) -> ClusterSpec:
    """Return the cluster with each chip as `per_chip` accelerators that share its figures equally."""
    chip = cluster.accelerator
    core = chip.model_copy(
        update={
            "name": f"{chip.name} core",
            "peak_flops": {dtype: peak / per_chip for dtype, peak in chip.peak_flops.items()},
            "memory_bytes": chip.memory_bytes / per_chip if chip.memory_bytes else None,
            "memory_bandwidth_bytes_per_s": (chip.memory_bandwidth_bytes_per_s or 0.0) / per_chip or None,
            "num_compute_units": None,
        }
    )
    tiers = tuple(_tier_of_cores(tier, per_chip) for tier in cluster.tiers)
    update = {"accelerator": core, "accelerators_per_node": cluster.accelerators_per_node * per_chip, "tiers": tiers}
    return cluster.model_copy(update=update)


def _tier_of_cores(tier: NetworkTier, per_chip: int) -> NetworkTier:
    bandwidth = tier.bandwidth_bytes_per_s / per_chip
    return tier.model_copy(update={"span": tier.span * per_chip, "bandwidth_bytes_per_s": bandwidth})


def _published_peaks(device: AcceleratorSpec) -> DeviceRates:
    whole = dict.fromkeys(device.peak_flops, 1.0)
    return DeviceRates(name="published peaks", matmul=whole, attention=whole, memory=1.0)
