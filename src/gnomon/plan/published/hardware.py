"""The machine of a row: its accelerator by name, its network from what the row says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.errors import CatalogError, PlanError
from gnomon.plan.published.accelerators import accelerator_of
from gnomon.plan.published.columns import integer, text, with_digits
from gnomon.plan.published.interconnect import Interconnect, read_interconnect
from gnomon.spec import ClusterSpec, NetworkTier
from gnomon.spec.catalog import cluster_from_mapping, list_clusters, load_accelerator, load_cluster

Row = Mapping[str, Any]
Tiers = tuple[NetworkTier, ...]

# the machine that a row means when it names only the accelerator
USUAL_CLUSTERS = {
    "v100-32gb": "dgx-2",
    "v100-sxm3-32gb": "dgx-2",
    "v100-16gb": "dgx-1-v100",
    "a100-40gb": "dgx-a100",
    "a100-80gb": "dgx-a100",
    "h100-sxm": "dgx-h100",
    "h100-96gb-hbm2e": "dgx-h100",
    "h200": "dgx-h200",
    "h800": "hgx-h800",
    "a800-80gb": "hgx-a800",
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
# "2 slices of 64", "4 x v5e-256", "2 pods of 3072", but not the chips of "v5e-256 pod"
SLICES = re.compile(
    r"(?<![-\w.])(\d+)\s*(?:x\s*(?:tpu\s*)?v\d|slice|(?:\w+\s+)?pods?\b)|(?:slices|pods)\s*[=:]\s*(\d+)"
    r"|dcn_(?:data|fsdp)\w*\s*[=: ]\s*(\d+)"
)
UNBOUNDED = 1_000_000
LEAST_CHIPS = 4  # of a slice: one host's
# ring, simple protocol, as the tiers of the catalog: src/graph/tuning.cc of https://github.com/NVIDIA/nccl
PCIE_LATENCY_S, LINK_LATENCY_S, NETWORK_LATENCY_S = 5.7e-6, 3.4e-6, 14.0e-6


def cluster_of(row: Row, remarks: list[str]) -> ClusterSpec:
    """Return the machine: accelerators, nodes, and tiers; raise PlanError for unknown hardware.

    What was taken for want of a statement goes to `remarks`.
    """
    accelerator = _board(row, accelerator_of(row, remarks))
    ranks = integer(row, "n_accel") or 1
    cluster = _catalog_cluster(row, accelerator, remarks)
    per_node = integer(row, "accel_per_node") or (cluster.accelerators_per_node if cluster else 1)
    stated = read_interconnect(f"{row.get('interconnect_note') or ''}", per_node)
    remarks += stated.remarks
    stated = stated._replace(domain=stated.domain or _rack_of(row))
    if cluster is None:
        cluster = _generic_cluster(row, accelerator, stated, remarks)
    tiers = _with_stated_rate(cluster.tiers, stated, per_node)
    if accelerator.startswith("tpu"):
        tiers = _with_slices(tiers, _note(row), ranks)
    else:
        tiers = _with_domain(cluster, tiers, stated, per_node, ranks, remarks)
    tiers = (*tiers[:-1], tiers[-1].model_copy(update={"span": max(tiers[-1].span, UNBOUNDED)})) if tiers else ()
    nodes = -(-ranks // per_node)
    return cluster.model_copy(update={"accelerators_per_node": per_node, "num_nodes": nodes, "tiers": tiers})


def _board(row: Row, accelerator: str) -> str:
    """Return the accelerator, in a DGX-2 the board that this machine alone has: its V100s are clocked higher."""
    stated = text(row, "hardware")
    dgx_2 = re.search(r"dgx-2|sxm3", f"{stated} {_note(row)}") or integer(row, "accel_per_node") == 16
    higher = accelerator == "v100-32gb" and dgx_2 and "sxm2" not in stated
    return "v100-sxm3-32gb" if higher else accelerator


def _note(row: Row) -> str:
    return with_digits(" ".join(text(row, c) for c in ("interconnect_note", "zero_stage_or_fsdp")))


def _rack_of(row: Row) -> int | None:
    """Return the accelerators of the rack that the hardware's name states (GB200-NVL72)."""
    found = re.search(r"nvl(\d+)", text(row, "hardware"))
    return int(found.group(1)) if found else None


def _catalog_cluster(row: Row, accelerator: str, remarks: list[str]) -> ClusterSpec | None:
    """Return the cluster that a row names, or the usual one of its accelerator; None when the catalog has none."""
    named = next((c for key, c in NAMED_CLUSTERS.items() if key in _note(row)), None)
    sxm2 = "dgx-1-v100" if accelerator.startswith("v100") and "sxm2" in text(row, "hardware") else None
    name = named or sxm2 or USUAL_CLUSTERS.get(accelerator)
    if name is None:
        name = next((n for n in list_clusters() if load_cluster(n).accelerator.name == accelerator), None)
        if name is None:
            return None
        remarks.append(f"no machine is named: {accelerator} taken in the network of {name}")
    try:
        cluster = load_cluster(name)
    except CatalogError as error:
        raise PlanError(str(error)) from None
    if cluster.accelerator.name == accelerator:
        return cluster
    return _built(cluster.name, accelerator, cluster.accelerators_per_node, cluster.tiers)


def _built(name: str, accelerator: str, per_node: int, tiers: Tiers) -> ClusterSpec:
    described = [tier.to_mapping() for tier in tiers]
    return cluster_from_mapping(
        {"name": name, "accelerator": accelerator, "accelerators_per_node": per_node, "tiers": described}
    )


def _generic_cluster(row: Row, accelerator: str, stated: Interconnect, remarks: list[str]) -> ClusterSpec:
    """Return nodes made of what is known: the link that the note states, else PCIe of the catalog, and the network.

    Raises PlanError when the rate is unknown of what connects the accelerators, or the nodes.
    """
    ranks, per_node = integer(row, "n_accel") or 1, integer(row, "accel_per_node")
    if ranks == 1:
        return _built(accelerator, accelerator, 1, ())
    silent = f"hardware is {row.get('hardware')!r}, for which the catalog has no cluster"
    if per_node is None:
        raise PlanError(f"{silent}, and accel_per_node is blank")
    pcie = load_accelerator(accelerator).host_bandwidth_bytes_per_s
    link, network = stated.link_bytes_per_s or pcie, stated.node_bytes_per_s
    if link is None and network is None:
        raise PlanError(f"{silent}; neither the rate of its links nor that of its network is known")
    if ranks > per_node and network is None:
        raise PlanError(f"{silent}, and interconnect_note states no rate of the network between nodes of {per_node}")
    tiers, parts = list[NetworkTier](), list[str]()
    if link is not None and per_node > 1:
        what, latency = ("link", LINK_LATENCY_S) if stated.link_bytes_per_s else ("PCIe", PCIE_LATENCY_S)
        tiers.append(NetworkTier(name=what, span=per_node, bandwidth_bytes_per_s=link, latency_s=latency))
        parts.append(f"{what} of {link / 1e9:g} GB/s per direction")
    if network is not None:
        rate = network / per_node
        tiers.append(
            NetworkTier(name="network", span=UNBOUNDED, bandwidth_bytes_per_s=rate, latency_s=NETWORK_LATENCY_S)
        )
        parts.append(f"a network of {network * 8 / 1e9:g} Gb/s per node" + " within nodes too" * (link is None))
    remarks.append(f"the catalog has no cluster of {accelerator}: nodes of {per_node} with {' and '.join(parts)}")
    return _built(f"{accelerator}-node", accelerator, per_node, tuple(tiers))


def _with_stated_rate(tiers: Tiers, stated: Interconnect, per_node: int) -> Tiers:
    """Return the tiers with the network's rate per node that the row states, shared by the node's accelerators."""
    if stated.node_bytes_per_s is None or len(tiers) < 2:
        return tiers
    rate = stated.node_bytes_per_s / per_node
    measured = tiers[-1].achieved if rate == tiers[-1].bandwidth_bytes_per_s else None
    return (*tiers[:-1], tiers[-1].model_copy(update={"bandwidth_bytes_per_s": rate, "achieved": measured}))


def _with_domain(
    cluster: ClusterSpec, tiers: Tiers, stated: Interconnect, per_node: int, ranks: int, remarks: list[str]
) -> Tiers:
    """Return the tiers with an innermost one of the domain that the row names, else of no more than its nodes have.

    A tier that spans more than a node in the catalog (a rack) is not cut by `accel_per_node`.
    """
    if len(tiers) < 2:
        return tiers
    inner, *outer = tiers
    span = inner.span
    if stated.domain:
        span = stated.domain
    elif span == cluster.accelerators_per_node:
        span = min(span, per_node)
        if span < min(per_node, ranks):
            remarks.append(
                f"accel_per_node={per_node} is more than {inner.name} joins in {cluster.name}, {span}: "
                "beyond them the network is priced"
            )
    return (inner.model_copy(update={"span": span}), *[tier for tier in outer if tier.span > span])


def _with_slices(tiers: Tiers, note: str, ranks: int) -> Tiers:
    """Return the tiers of TPU slices: the torus inside, the data-centre network between several.

    Where no number of slices is stated there are no more than a pod's chips require.
    """
    if not tiers:
        return tiers
    torus, *outer = tiers
    numbers = [int(next(filter(None, found))) for found in SLICES.findall(note)]
    # "a v5e 256 pod" is one of 256 chips
    count = next((n for n in numbers if n and ranks // n >= LEAST_CHIPS), -(-ranks // torus.span))
    if count <= 1:
        return (torus.model_copy(update={"span": max(ranks, torus.span)}),)
    return (torus.model_copy(update={"span": max(1, ranks // count)}), *outer)
