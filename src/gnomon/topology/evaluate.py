"""How far the process groups of a job reach over the network, against the least that its nodes allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, pairwise
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from gnomon.spec import Layout
from gnomon.spec._noun import Noun
from gnomon.topology.graph import NO_COMMON_SWITCH, NetworkNode, Topology, TopologyError, hops
from gnomon.topology.groups import GROUP_KINDS, GroupKind, NodeGroup, num_nodes, process_groups, ranks_per_node
from gnomon.topology.steiner import Link, chain_bound, crossed_links, pair_hops, ring_bound

Traversal = Literal["ring", "chain", "pairs"]

TRAVERSALS: dict[GroupKind, Traversal] = {"tp": "ring", "cp": "ring", "ep": "pairs", "dp": "ring", "pp": "chain"}
"""A ring closes; a chain of pipeline stages does not; the all-to-all of experts joins every pair."""


class GroupDistance(Noun):
    """Hops of one process group (of each of its `group.copies`) between distinct nodes."""

    group: NodeGroup
    total_hops: NonNegativeInt
    mean_hops: NonNegativeFloat
    worst_hops: NonNegativeInt
    ideal_hops: NonNegativeInt


class LinkLoad(Noun):
    """The link of one level that most process groups of one kind cross; level 0 is above the spines."""

    level: NonNegativeInt
    link: str
    groups: NonNegativeInt


class KindDistance(Noun):
    """Distances of all process groups of one kind. Totals count every copy of every group."""

    kind: GroupKind
    traversal: Traversal
    num_groups: NonNegativeInt
    total_hops: NonNegativeInt
    mean_hops: NonNegativeFloat
    worst_hops: NonNegativeInt
    ideal_hops: NonNegativeInt
    groups: tuple[GroupDistance, ...]
    busiest_links: tuple[LinkLoad, ...]


class PlacementEvaluation(Noun):
    """Distances of a placed job by kind of process group; kinds that stay inside nodes are left out."""

    layout: Layout
    accelerators_per_node: NonNegativeInt
    node_names: tuple[str, ...]
    spines: tuple[str, ...]
    kinds: tuple[KindDistance, ...]
    total_hops: NonNegativeInt
    ideal_hops: NonNegativeInt
    source: str = Field(default="", description="of the topology, with what it left out or assumed")

    def kind(self, name: GroupKind) -> KindDistance | None:
        """Return the distances of one kind, or None when its groups stay inside nodes."""
        return next((kind for kind in self.kinds if kind.kind == name), None)


def evaluate(topology: Topology, layout: Layout, accelerators_per_node: int = 8) -> PlacementEvaluation:
    """Return the distances of the running job.

    Raises TopologyError when its nodes are not as many as the layout needs, or have too few accelerators for its ranks.
    """
    job = topology.job
    needed = num_nodes(layout, accelerators_per_node)
    if not job:
        raise TopologyError(
            f"No node of {topology.source or 'the topology'} has a rank, so there is no job to evaluate. Name it: "
            "--search-prefix for --kubernetes, --slurm-job for --slurm, --hostfile for any source, or 'rank' in a file."
        )
    if len(job) != needed:
        have = "1 node of the topology has" if len(job) == 1 else f"{len(job)} nodes of the topology have"
        raise TopologyError(
            f"{describe_needs(layout, accelerators_per_node)}, but {have} a rank. "
            "Set degrees and accelerators per node as in the job, or give each of its nodes a rank."
        )
    _check_room(job, layout, accelerators_per_node)
    return evaluate_nodes(job, layout, accelerators_per_node, topology.source)


def _check_room(job: Sequence[NetworkNode], layout: Layout, accelerators_per_node: int) -> None:
    ranks = ranks_per_node(layout, accelerators_per_node)
    small = [node for node in job if not node.holds(ranks)]
    if small:
        have = "1 node of the job has" if len(small) == 1 else f"{len(small)} nodes of the job have"
        raise TopologyError(
            f"{describe_needs(layout, accelerators_per_node)}, with {ranks} ranks on each, but {have} fewer "
            f"accelerators: '{small[0].name}' has {small[0].accelerators}. Set --accelerators-per-node to what the "
            "nodes have, or correct the topology."
        )


def evaluate_nodes(
    nodes: Sequence[NetworkNode], layout: Layout, accelerators_per_node: int = 8, source: str = ""
) -> PlacementEvaluation:
    """Return the distances of a job whose node rank r is on `nodes[r]`; `source` is that of their topology."""
    groups = process_groups(layout, accelerators_per_node)
    kinds = tuple(
        _kind_distance(kind, groups[kind], nodes)
        for kind in GROUP_KINDS
        if any(len(group.node_ranks) > 1 for group in groups[kind])
    )
    return PlacementEvaluation(
        layout=layout,
        accelerators_per_node=accelerators_per_node,
        node_names=tuple(node.name for node in nodes),
        spines=tuple(sorted({node.path[0] for node in nodes})),
        kinds=kinds,
        total_hops=sum(kind.total_hops for kind in kinds),
        ideal_hops=sum(kind.ideal_hops for kind in kinds),
        source=source,
    )


def legs(group: NodeGroup) -> list[tuple[int, int]]:
    """Return the pairs of node ranks between which the group sends."""
    ranks = group.node_ranks
    traversal = TRAVERSALS[group.kind]
    if traversal == "pairs":
        return list(combinations(ranks, 2))
    if traversal == "ring" and len(ranks) > 1:
        return list(pairwise((*ranks, ranks[0])))
    return list(pairwise(ranks))


def describe_needs(layout: Layout, accelerators_per_node: int) -> str:
    """Return how many nodes the layout needs, as the beginning of a sentence."""
    degrees = f"pp={layout.pp} x dp={layout.dp} x cp={layout.cp} x tp={layout.tp}"
    needed = num_nodes(layout, accelerators_per_node)
    return f"{degrees} with {accelerators_per_node} accelerators per node needs {needed} node{'s'[: needed != 1]}"


def _kind_distance(kind: GroupKind, groups: Sequence[NodeGroup], nodes: Sequence[NetworkNode]) -> KindDistance:
    distances = [_group_distance(group, nodes) for group in groups]
    num_legs = sum(len(legs(group)) * group.copies for group in groups)
    total = sum(item.total_hops * item.group.copies for item in distances)
    return KindDistance(
        kind=kind,
        traversal=TRAVERSALS[kind],
        num_groups=sum(group.copies for group in groups),
        total_hops=total,
        mean_hops=total / num_legs if num_legs else 0.0,
        worst_hops=max(item.worst_hops for item in distances),
        ideal_hops=sum(item.ideal_hops * item.group.copies for item in distances),
        groups=tuple(distances),
        busiest_links=_busiest_links(groups, nodes),
    )


def _group_distance(group: NodeGroup, nodes: Sequence[NetworkNode]) -> GroupDistance:
    members = [nodes[rank] for rank in group.node_ranks]
    lengths = [hops(nodes[a], nodes[b]) for a, b in legs(group)]
    ideal = {"ring": ring_bound, "chain": chain_bound, "pairs": pair_hops}[TRAVERSALS[group.kind]]
    return GroupDistance(
        group=group,
        total_hops=sum(lengths),
        mean_hops=sum(lengths) / len(lengths) if lengths else 0.0,
        worst_hops=max(lengths, default=0),
        ideal_hops=ideal(members),
    )


def _busiest_links(groups: Sequence[NodeGroup], nodes: Sequence[NetworkNode]) -> tuple[LinkLoad, ...]:
    """Return per level, from the spines down to the nodes, the link that most groups cross (first by name)."""
    load: Counter[Link] = Counter()
    for group in groups:
        for link in crossed_links([nodes[rank] for rank in group.node_ranks]):
            load[link] += group.copies
    busiest: dict[int, Link] = {}
    for link in sorted(load):
        if link.level not in busiest or load[link] > load[busiest[link.level]]:
            busiest[link.level] = link
    return tuple(
        LinkLoad(level=level, link=f"{link.name} - {link.above or NO_COMMON_SWITCH}", groups=load[link])
        for level, link in sorted(busiest.items())
    )
