"""Node labels that tell where a Kubernetes node is in the network, by who sets them, and the paths they make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gnomon.errors import did_you_mean
from gnomon.topology.sources._errors import TopologySourceError

Labels = Mapping[str, str]


@dataclass(frozen=True)
class LabelFamily:
    """Label keys from the farthest level to the nearest. `note` says what they leave open."""

    name: str
    keys: tuple[str, ...]
    note: str = ""


def _tiers(prefix: str) -> tuple[str, ...]:
    """Numbered levels of which 0 is the nearest."""
    return tuple(f"{prefix}/tier-{tier}" for tier in range(9, -1, -1))


FAMILIES = (
    LabelFamily("Topograph", _tiers("fabric.topograph.run")),
    LabelFamily(
        "Topograph",
        tuple(f"network.topology.nvidia.com/{level}" for level in ("datacenter", "core", "spine", "block", "leaf")),
    ),
    LabelFamily("AWS", tuple(f"topology.k8s.aws/network-node-layer-{layer}" for layer in (1, 2, 3, 4))),
    LabelFamily("GKE", tuple(f"cloud.google.com/gce-topology-{level}" for level in ("block", "subblock", "host"))),
    LabelFamily(
        "OCI",
        tuple(f"oci.oraclecloud.com/rdma.{level}" for level in ("hpc_island_id", "network_block_id", "local_block_id")),
    ),
    LabelFamily("OCI", ("oci.oraclecloud.com/host.network_block_id", "oci.oraclecloud.com/host.rack_id")),
    LabelFamily("CoreWeave", tuple(f"ib.coreweave.cloud/{level}" for level in ("fabric", "superpod", "leafgroup"))),
    LabelFamily("Nebius", ("topology.nebius.com/gpu-cluster-id", *_tiers("topology.nebius.com"))),
    LabelFamily("Crusoe", ("crusoe.ai/ib.partition.id", "crusoe.ai/pod.id")),
    LabelFamily("Kueue", ("cloud.provider.com/topology-block", "cloud.provider.com/topology-rack")),
    # AKS labels the placement group and no switch below it; its InfiniBand labels come from Topograph
    LabelFamily("AKS", ("kubernetes.azure.com/ppg",), note="only the proximity placement group is known, no switch"),
)
"""Every vendor's own labels. The first family that most nodes carry is used."""

_NO_SWITCH = (
    "only region and zone are known, no switch: name the label keys of its levels (--levels), or ask its operator"
)

LOCATIONS = (
    LabelFamily("location", ("topology.kubernetes.io/region", "topology.kubernetes.io/zone"), _NO_SWITCH),
    LabelFamily("location", ("topology.gke.io/zone",), _NO_SWITCH),
)
"""What remains where nobody labels the network."""

HOST_LABELS = {"kubernetes.io/hostname", "cloud.google.com/gce-topology-host"}
"""Levels that are the machine itself unless several nodes share one."""


def choose_family(nodes: Mapping[str, Labels], levels: Sequence[str] | None = None) -> LabelFamily:
    """Return the labels to read: `levels` where given, else the family most nodes carry, else region and zone.

    Raises TopologySourceError for a level that no node carries, and where not even a zone is known.
    """
    present = {key for labels in nodes.values() for key, value in labels.items() if value}
    if levels:
        for level in levels:
            if level not in present:
                raise TopologySourceError(f"No node has the label '{level}'. {did_you_mean(level, present)}")
        return LabelFamily(", ".join(levels), tuple(levels))
    coverage = {
        family: sum(bool(_values(labels, _used(family, present))) for labels in nodes.values()) for family in FAMILIES
    }
    best = max(FAMILIES, key=lambda family: coverage[family])
    if coverage[best]:
        return best
    for location in LOCATIONS:
        if present & set(location.keys):
            return location
    raise TopologySourceError(
        "No node has a label that says where it is: neither network labels of a known vendor nor region and zone. "
        f"Name the label keys of the levels, from the farthest to the nearest (--levels). {did_you_mean('', present)}"
    )


def read_paths(nodes: Mapping[str, Labels], family: LabelFamily) -> dict[str, tuple[str, ...]]:
    """Return the path of each node that carries the farthest label of the family; others are not in the result.

    A path ends before the first level a node lacks. A value that occurs in several places (rack 1 of block a and rack
    1 of block b) is written with what is above it (`a/1`), because levels are read as nested, as Kueue does.
    """
    present = {key for labels in nodes.values() for key, value in labels.items() if value}
    keys = _used(family, present)
    values = {name: _values(labels, keys) for name, labels in nodes.items()}
    values = _without_hosts({name: value for name, value in values.items() if value}, keys)
    places: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for value in values.values():
        for level in range(len(value)):
            places[value[level]].add(value[: level + 1])
    return {
        name: tuple(
            value[level] if len(places[value[level]]) == 1 else "/".join(value[: level + 1])
            for level in range(len(value))
        )
        for name, value in values.items()
    }


def _used(family: LabelFamily, present: set[str]) -> tuple[str, ...]:
    return tuple(key for key in family.keys if key in present)


def _values(labels: Labels, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the values up to the first missing one."""
    values: list[str] = []
    for key in keys:
        if not labels.get(key):
            break
        values.append(labels[key])
    return tuple(values)


def _without_hosts(values: dict[str, tuple[str, ...]], keys: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Drop a last level that is each machine itself, because it connects nothing."""
    if len(keys) < 2 or keys[-1] not in HOST_LABELS:
        return values
    full = [value for value in values.values() if len(value) == len(keys)]
    if len(set(full)) < len(full):
        return values
    return {name: value[: len(keys) - 1] for name, value in values.items()}
