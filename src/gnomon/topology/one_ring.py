"""The best single ring: the nodes that the fewest links between switches join, in polynomial time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gnomon.topology.branch import Branch, build_branch
from gnomon.topology.graph import NetworkNode
from gnomon.topology.packing import Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Ints = NDArray[np.int_]


def best_ring(branch: Branch, ring_size: int) -> Ring:
    """Return `ring_size` nodes, ascending, that the fewest links between switches join.

    A knapsack over the tree: for each branch and number of links, the most nodes that a subtree from its top with so
    many links reaches. With n links in all this takes O(n^2) steps (each vectorised), because two branches are combined
    once and in as many steps as the product of their links.
    """
    search = _Knapsack(ring_size)
    search.solve(branch)
    _, top = search.best
    return tuple(sorted(search.collect(top, int(np.argmax(search.most[top][-1] >= ring_size))))[:ring_size])


def rings_one_by_one(nodes: Sequence[NetworkNode], num_rings: int, ring_size: int) -> list[Ring]:
    """Return rings of nodes in depth-first order, each the best of what the rings before it left; good, not optimal."""
    left = list(range(len(nodes)))
    rings: list[Ring] = []
    for _ in range(num_rings):
        places = best_ring(build_branch([nodes[index] for index in left]), ring_size)
        rings.append(tuple(left[place] for place in places))
        taken = set(rings[-1])
        left = [index for index in left if index not in taken]
    return rings


class _Knapsack:
    def __init__(self, ring_size: int) -> None:
        self.ring_size = ring_size
        self.most: dict[Branch, list[_Ints]] = {}
        self.best: tuple[int, Branch]

    def solve(self, branch: Branch) -> _Ints:
        """Return the most nodes for each number of links, and note the branch that needs the fewest for a ring."""
        stages = [np.array([len(branch.nodes)])]
        for child in branch.children:
            stages.append(_combine(stages[-1], _with_link(self.solve(child), child.weight)))
        self.most[branch] = stages
        enough = np.flatnonzero(stages[-1] >= self.ring_size)
        if len(enough) and (not hasattr(self, "best") or enough[0] < self.best[0]):
            self.best = (int(enough[0]), branch)
        return stages[-1]

    def collect(self, branch: Branch, links: int) -> list[int]:
        """Return the nodes that the subtree with so many links reaches."""
        nodes = list(branch.nodes)
        stages = self.most[branch]
        for stage, before, child in zip(stages[:0:-1], stages[-2::-1], branch.children[::-1], strict=True):
            low = _with_link(self.most[child][-1], child.weight)
            spent = next(
                n
                for n in range(len(low))
                if 0 <= links - n < len(before) and before[links - n] + low[n] == stage[links]
            )
            if spent:
                nodes.extend(self.collect(child, spent - child.weight))
            links -= spent
        return nodes


def _with_link(most: _Ints, weight: int) -> _Ints:
    """Return the most nodes when the links above are counted too; without them none is reached."""
    return np.concatenate([np.zeros(weight, dtype=int), most])


def _combine(first: _Ints, second: _Ints) -> _Ints:
    both = np.zeros(len(first) + len(second) - 1, dtype=int)
    short, long = (first, second) if len(first) < len(second) else (second, first)
    for links, nodes in enumerate(short):
        part = both[links : links + len(long)]
        np.maximum(part, long + nodes, out=part)
    return both
