"""Process groups of a layout, as sequences of node ranks."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from gnomon.errors import LayoutError
from gnomon.spec import Layout
from gnomon.spec._noun import Noun

GroupKind = Literal["tp", "cp", "ep", "dp", "pp"]

GROUP_KINDS: dict[GroupKind, str] = {
    "tp": "tensor parallel",
    "cp": "context parallel",
    "ep": "expert parallel",
    "dp": "data parallel",
    "pp": "pipeline parallel",
}


class NodeGroup(Noun):
    """The nodes that one process group visits, in the order of its ranks, each node once.

    Groups that visit the same nodes in the same order (one for each accelerator of a node, say) are one `NodeGroup`
    with `copies`; `label` and `first_rank` are those of the first of them.
    """

    kind: GroupKind
    label: str
    first_rank: NonNegativeInt
    node_ranks: tuple[NonNegativeInt, ...]
    copies: PositiveInt = 1


def num_nodes(layout: Layout, accelerators_per_node: int) -> int:
    """Return the nodes that the layout fills; raise LayoutError when its ranks do not fill whole nodes.

    A layout with fewer ranks than one node has accelerators takes one node.
    """
    nodes, rest = divmod(layout.num_ranks, accelerators_per_node)
    if nodes and rest:
        below = nodes * accelerators_per_node
        raise LayoutError(
            f"pp={layout.pp} x dp={layout.dp} x cp={layout.cp} x tp={layout.tp} is {layout.num_ranks} ranks, which do "
            f"not fill whole nodes of {accelerators_per_node} accelerators. Choose degrees whose product is {below} or "
            f"{below + accelerators_per_node}, or set the accelerators of a node."
        )
    return max(nodes, 1)


def ranks_per_node(layout: Layout, accelerators_per_node: int) -> int:
    """Return the ranks on each node of the layout: as many as it has accelerators, unless one node has room for all."""
    return min(accelerators_per_node, layout.num_ranks)


def process_groups(layout: Layout, accelerators_per_node: int) -> dict[GroupKind, tuple[NodeGroup, ...]]:
    """Return the process groups of each kind, in the order of their first ranks.

    Ranks are numbered by one reshape to (pp, dp, cp, tp) with tp fastest; rank r is on node r // accelerators_per_node.
    Experts share the ranks of a pipeline stage: one reshape to (pp, expert_dp, ep, expert_tp).
    """
    num_nodes(layout, accelerators_per_node)
    dense = {"pp": layout.pp, "dp": layout.dp, "cp": layout.cp, "tp": layout.tp}
    expert = {"pp": layout.pp, "expert_dp": layout.expert_dp, "ep": layout.ep, "expert_tp": layout.expert_tp}
    grids: dict[GroupKind, dict[str, int]] = {"tp": dense, "cp": dense, "ep": expert, "dp": dense, "pp": dense}
    return {kind: _groups(kind, grid, accelerators_per_node) for kind, grid in grids.items()}


def _groups(kind: GroupKind, grid: dict[str, int], accelerators_per_node: int) -> tuple[NodeGroup, ...]:
    shape = tuple(grid.values())
    ranks = np.arange(np.prod(shape)).reshape(shape)
    members = np.moveaxis(ranks, list(grid).index(kind), -1).reshape(-1, grid[kind])
    nodes, first, copies = np.unique(members // accelerators_per_node, axis=0, return_index=True, return_counts=True)
    order = np.argsort(members[first, 0])
    first_ranks = members[first[order], 0]
    places = np.stack(np.unravel_index(first_ranks, shape), axis=1).tolist()
    # plain Python from here on: there are as many rows as groups, and most rows are short
    rows = zip(nodes[order].tolist(), first_ranks.tolist(), copies[order].tolist(), places, strict=True)
    return tuple(
        NodeGroup(
            kind=kind,
            label=_label(kind, grid, place),
            first_rank=first_rank,
            node_ranks=tuple(dict.fromkeys(visited)),  # ranks of a group ascend, so those on one node are neighbours
            copies=number,
        )
        for visited, first_rank, number, place in rows
    )


def _label(kind: str, grid: dict[str, int], places: list[int]) -> str:
    axes = zip(grid.items(), places, strict=True)
    return ", ".join(f"{axis} {place}" for (axis, degree), place in axes if axis != kind and degree > 1)
