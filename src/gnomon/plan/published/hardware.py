"""The machine of a row: its accelerator by name, its network from what the row says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.errors import CatalogError, PlanError
from gnomon.plan.published.columns import integer, text
from gnomon.spec import ClusterSpec, NetworkTier
from gnomon.spec.catalog import cluster_from_mapping, list_accelerators, list_clusters, load_cluster

Row = Mapping[str, Any]

# the machine that a row means when it names only the accelerator
USUAL_CLUSTERS = {
    "v100-32gb": "dgx-2",
    "v100-16gb": "dgx-1-v100",
    "a100-40gb": "dgx-a100",
    "a100-80gb": "dgx-a100",
    "h100-sxm": "dgx-h100",
    "h100-96gb-hbm2e": "dgx-h100",
    "h200": "dgx-h200",
    "h800": "hgx-h800",
    "a800": "hgx-a800",
    "b200": "dgx-b200",
    "b300": "dgx-b300",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
    "mi300x": "mi300x-8x400g",
    "mi325x": "mi325x-8x400g",
    "mi355x": "mi355x-8x400g",
    "tpu-v3": "tpu-v3-pod",
    "tpu-v4": "tpu-v4-pod",
    "tpu-v5e": "tpu-v5e-pod",
    "tpu-v5p": "tpu-v5p-pod",
    "tpu-v6e": "tpu-v6e-pod",
    "tpu-v7x": "tpu-v7x-pod",
    "gaudi2": "hls-gaudi2",
    "gaudi3": "hls-gaudi3",
}
NAMED_CLUSTERS = {
    "jean zay": "jean-zay-a100",
    "selene": "selene",
    "dgx-2": "dgx-2",
    "dgx-1": "dgx-1-v100",
    "gcp a3": "a3-highgpu-8g",
    "leonardo": "leonardo-booster",
    "juwels": "juwels-booster",
    "perlmutter": "perlmutter",
    "frontier": "frontier",
    "lumi": "lumi-g",
}
DATA_CENTRE_TIER_BYTES_PER_S = 100e9 / 8 / 4  # TPU slices: 100 Gb/s per host of four chips
UNBOUNDED = 1_000_000


def accelerator_of(row: Row) -> str:
    """Return the catalog name of a row's hardware; raise PlanError when the catalog does not know it."""
    stated = text(row, "hardware").split("(")[0].strip()
    known = list_accelerators()
    plain = re.sub(r"[^a-z0-9]+", "-", stated).strip("-")
    candidates = [plain, re.sub(r"-sxm.*|-\d+gb.*|-ironwood", "", plain)]
    candidates += [f"{candidates[1]}-sxm", f"{candidates[1]}-80gb", f"{candidates[1]}-32gb"]
    memory = re.search(r"96gb-hbm2e", plain)
    if memory:
        candidates.insert(0, "h100-96gb-hbm2e")
    for name in candidates:
        if name in known:
            return name
    raise PlanError(f"hardware is {row.get('hardware')!r}, which the catalog does not know")


def cluster_of(row: Row) -> ClusterSpec:
    """Return the machine: accelerators, nodes, and tiers; raise PlanError for unknown hardware."""
    accelerator = accelerator_of(row)
    ranks = integer(row, "n_accel") or 1
    note = " ".join(text(row, c) for c in ("interconnect_note", "zero_stage_or_fsdp"))
    named = next((c for key, c in NAMED_CLUSTERS.items() if key in note), None)
    name = named or USUAL_CLUSTERS.get(accelerator) or _cluster_with(accelerator)
    if name is None and ranks == 1:
        alone = {"name": accelerator, "accelerator": accelerator, "accelerators_per_node": 1}
        return cluster_from_mapping(alone)
    if name is None:
        raise PlanError(f"hardware is {row.get('hardware')!r}, for which the catalog has no cluster")
    try:
        cluster = load_cluster(name)
    except CatalogError as error:
        raise PlanError(str(error)) from None
    if cluster.accelerator.name != accelerator:
        described = [tier.to_mapping() for tier in cluster.tiers]
        cluster = cluster_from_mapping(
            {
                "name": cluster.name,
                "accelerator": accelerator,
                "accelerators_per_node": cluster.accelerators_per_node,
                "tiers": described,
            }
        )
    per_node = integer(row, "accel_per_node") or cluster.accelerators_per_node
    tiers = _with_stated_rate(cluster, note, per_node)
    if accelerator.startswith("tpu"):
        tiers = _with_slices(tiers, note, ranks)
    tiers = (*tiers[:-1], tiers[-1].model_copy(update={"span": max(tiers[-1].span, UNBOUNDED)})) if tiers else ()
    nodes = -(-ranks // per_node)
    return cluster.model_copy(update={"accelerators_per_node": per_node, "num_nodes": nodes, "tiers": tiers})


def _cluster_with(accelerator: str) -> str | None:
    """Return the first cluster of the catalog with this accelerator."""
    return next((name for name in list_clusters() if load_cluster(name).accelerator.name == accelerator), None)


def _with_stated_rate(cluster: ClusterSpec, note: str, per_node: int) -> tuple[NetworkTier, ...]:
    """Return the tiers with the network's rate per node that the row states, shared by the node's accelerators."""
    stated = re.search(r"(\d+)\s*(?:gb/s|gbps|gbit/s)", note)
    if stated is None or len(cluster.tiers) < 2:
        return cluster.tiers
    rate = float(stated.group(1)) * 1e9 / 8.0 / per_node
    *inner, outer = cluster.tiers
    return (*inner, outer.model_copy(update={"bandwidth_bytes_per_s": rate}))


def _with_slices(tiers: tuple[NetworkTier, ...], note: str, ranks: int) -> tuple[NetworkTier, ...]:
    """Return the tiers of TPU slices: torus inside, data-centre network between several."""
    slices = re.search(r"(\d+)\s*(?:x\s*v\d|slice)", note)
    count = int(slices.group(1)) if slices else 1
    if count <= 1:
        return (tiers[0].model_copy(update={"span": max(ranks, tiers[0].span)}),)
    outer = NetworkTier(
        name="data-centre network", span=UNBOUNDED, bandwidth_bytes_per_s=DATA_CENTRE_TIER_BYTES_PER_S, latency_s=3e-5
    )
    return (tiers[0].model_copy(update={"span": max(1, ranks // count)}), outer)
