"""Which free nodes a job takes, and in which order of ranks.

A layout of pp stages, each of dp replicas on k nodes (k is 1 unless tensor or context groups reach over nodes), has
R = pp k data-parallel rings of m = dp nodes each; with several replicas on one node, m is dp divided by their number.
The objective, in this order:

1. the hops of all data-parallel rings: the sum over the rings of the hops between neighbours, the last and the first
   included. Gradients are reduced along these rings, and nothing else of a layout makes them shorter;
2. the hops between neighbouring pipeline stages, then those of context-parallel groups.

The first part is solved. *One ring.* Every closed walk crosses each link of the subtree that joins its nodes at least
twice, once in each direction. Nodes in the order of a depth-first search leave and enter every branch once, so their
ring crosses it exactly twice: no order is better. A ring of m >= 2 nodes thus costs 2 (m + s) hops, s being the links
between switches in that subtree; every node adds the one link of its own. *All rings.* What remains is to choose R
disjoint sets of m free nodes with the least sum of s. For R = 1 that is a knapsack over the tree (`one_ring`). For
R > 1 it is NP-hard (`exact` says why), therefore: quick packings, lower bounds that prove most of them best (`bound`,
and R times the best single ring), and else an exact search with a limit on its work. `Assignment.is_optimal` says
whether the result is proven; if not, `lower_bound_hops` says how far it may be from the best.

When no data-parallel ring leaves its node (m = 1), the first part is zero for every choice, and the nodes are those of
one ring through all nodes of the job with the fewest hops.

The second part is a tie-break among equal first parts, done well but not proven: see `arrange`.

Everything is ordered by name, so equal input gives equal output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt

from gnomon.errors import LayoutError, did_you_mean
from gnomon.spec import Layout
from gnomon.spec._noun import Noun
from gnomon.topology.arrange import HopTable, arrange, open_at_longest_leg
from gnomon.topology.bound import crossings_bound
from gnomon.topology.branch import build_branch, depth_first
from gnomon.topology.evaluate import PlacementEvaluation, describe_needs, evaluate_nodes
from gnomon.topology.exact import WorkLimitError, find_rings
from gnomon.topology.graph import NetworkNode, Topology, TopologyError
from gnomon.topology.groups import num_nodes, ranks_per_node
from gnomon.topology.one_ring import best_ring, rings_one_by_one
from gnomon.topology.packing import Packing, Ring, make_packing, pack

MAX_WORK = 100_000
"""States of the exact search: a second or less."""

MAX_RINGS_TIMES_NODES = 250_000
"""Up to here rings are also chosen one by one: a second or less."""

MAX_NAMES_TO_COMPARE = 1000


class Assignment(Noun):
    """Nodes in the order of node ranks, and how good they are."""

    layout: Layout
    accelerators_per_node: PositiveInt
    node_names: tuple[str, ...]
    ring_hops: NonNegativeInt
    """Hops of the data-parallel rings, those on the same nodes counted once (part 1 of the objective)."""
    lower_bound_hops: NonNegativeInt
    is_optimal: bool
    evaluation: PlacementEvaluation
    source: str = Field(default="", description="of the topology, with what it left out or assumed")


class _Rings(NamedTuple):
    """What the layout asks for: rings of equal size, some of which make a stage.

    Without rings between nodes it is one through all nodes, which says what is near but carries no gradients.
    """

    num_rings: int
    ring_size: int
    rings_per_stage: int
    carries_gradients: bool = True

    def hops(self, crossings: int) -> int:
        """Return the hops of the data-parallel rings whose subtrees have so many links between switches."""
        return 2 * (self.num_rings * self.ring_size + crossings) if self.carries_gradients else 0


def assign(topology: Topology, layout: Layout, accelerators_per_node: int = 8, max_work: int = MAX_WORK) -> Assignment:
    """Return the free nodes that the layout should take, in rank order; the objective is in this module's docstring.

    Nodes with fewer accelerators than ranks to hold are not used. Raises TopologyError when too few nodes are free, and
    LayoutError when pipeline stages or replicas end in the middle of a node.
    """
    wanted = _rings(layout, accelerators_per_node)
    nodes = depth_first(_usable(topology, layout, accelerators_per_node))
    packing, least = _choose(nodes, wanted, max_work)
    table = HopTable(nodes)
    if wanted.num_rings == 1:
        rings = [open_at_longest_leg(packing.rings[0], table)]
    else:
        rings = arrange(packing.rings, wanted.rings_per_stage, table)
    ordered = [nodes[index] for index in _rank_order(rings, wanted.rings_per_stage)]
    return Assignment(
        layout=layout,
        accelerators_per_node=accelerators_per_node,
        node_names=tuple(node.name for node in ordered),
        ring_hops=wanted.hops(packing.crossings),
        lower_bound_hops=wanted.hops(least),
        is_optimal=packing.crossings == least,
        evaluation=evaluate_nodes(ordered, layout, accelerators_per_node, topology.source),
        source=topology.source,
    )


def place_job(topology: Topology, node_names: Sequence[str]) -> Topology:
    """Return the topology with a job on these nodes, in rank order; nodes of a job before it count as busy.

    Raises TopologyError for a name that is not in the topology.
    """
    ranks = {name: rank for rank, name in enumerate(node_names)}
    for name in ranks:
        if name not in topology.by_name:
            near = did_you_mean(name, topology.by_name) if len(topology.nodes) <= MAX_NAMES_TO_COMPARE else ""
            raise TopologyError(f"Host '{name}' is not in the topology of {len(topology.nodes)} nodes. {near}".rstrip())
    nodes = (
        node.model_copy(update={"rank": ranks.get(node.name), "busy": node.name not in ranks and not node.is_free})
        for node in topology.nodes
    )
    return Topology(nodes=tuple(nodes), source=topology.source)


def _rings(layout: Layout, accelerators_per_node: int) -> _Rings:
    total = num_nodes(layout, accelerators_per_node)
    replica, stage = layout.cp * layout.tp, layout.dp * layout.cp * layout.tp
    for ranks, what in ((replica, "cp x tp"), (stage, "dp x cp x tp")):
        if ranks % accelerators_per_node and accelerators_per_node % ranks and total > 1:
            nearest = " or ".join(map(str, _nearest_that_fit(ranks, accelerators_per_node)))
            raise LayoutError(
                f"{what} = {ranks} ranks end in the middle of a node of {accelerators_per_node} accelerators, so that "
                f"rings share nodes. Choose degrees for which {what} is {nearest}."
            )
    rings_per_stage = max(replica // accelerators_per_node, 1)
    stage_nodes = max(stage // accelerators_per_node, 1)
    ring_size = stage_nodes // rings_per_stage
    if ring_size == 1:
        return _Rings(1, total, 1, carries_gradients=False)
    return _Rings(total // ring_size, ring_size, rings_per_stage)


def _nearest_that_fit(ranks: int, accelerators_per_node: int) -> tuple[int, int]:
    """Return the next fewer and next more ranks that fill whole nodes or divide one; `ranks` themselves do not."""
    if ranks > accelerators_per_node:
        below = ranks - ranks % accelerators_per_node
        return below, below + accelerators_per_node
    divisors = [d for d in range(1, accelerators_per_node + 1) if accelerators_per_node % d == 0]
    return max(d for d in divisors if d < ranks), min(d for d in divisors if d > ranks)


def _usable(topology: Topology, layout: Layout, accelerators_per_node: int) -> list[NetworkNode]:
    needed, free = num_nodes(layout, accelerators_per_node), topology.free
    ranks = ranks_per_node(layout, accelerators_per_node)
    usable = [node for node in free if node.holds(ranks)]
    if len(usable) < needed:
        small = f" ({len(free) - len(usable)} more are free but smaller)" if len(usable) < len(free) else ""
        missing = needed - len(usable)
        more = f", or free {missing} more node{'s'[: missing != 1]}" if needed <= len(topology.nodes) else ""
        raise TopologyError(
            f"{describe_needs(layout, accelerators_per_node)}, but only {len(usable)} of the {len(topology.nodes)} "
            f"nodes are free{small}. Ask for fewer ranks{more}."
        )
    return usable


def _choose(nodes: Sequence[NetworkNode], wanted: _Rings, max_work: int) -> tuple[Packing, int]:
    """Return rings and the fewest crossings that are possible as far as is known."""
    if wanted.ring_size == 1:
        return make_packing([(0,)], [nodes[0].path]), 0
    branch, paths = build_branch(nodes), [node.path for node in nodes]
    single = make_packing([best_ring(branch, wanted.ring_size)], paths)
    if wanted.num_rings == 1:
        return single, single.crossings
    least = max(
        crossings_bound(nodes, wanted.num_rings, wanted.ring_size),
        wanted.num_rings * single.crossings,
    )
    packing = pack(branch, paths, wanted.num_rings, wanted.ring_size)
    if packing.crossings > least and wanted.num_rings * len(nodes) <= MAX_RINGS_TIMES_NODES:
        other = make_packing(rings_one_by_one(nodes, wanted.num_rings, wanted.ring_size), paths)
        packing = min(packing, other, key=lambda item: item.crossings)
    if packing.crossings == least:
        return packing, least
    try:
        better = find_rings(branch, wanted.num_rings, wanted.ring_size, packing.crossings, max_work)
    except WorkLimitError:
        return packing, least
    packing = packing if better is None else make_packing(better, paths)
    return packing, packing.crossings


def _rank_order(rings: Sequence[Ring], rings_per_stage: int) -> list[int]:
    """Return nodes with the rings of one stage interleaved: replica after replica, stage after stage."""
    stages = [rings[start : start + rings_per_stage] for start in range(0, len(rings), rings_per_stage)]
    return [node for stage in stages for replica in zip(*stage, strict=True) for node in replica]
