"""Which ring becomes which pipeline stage, and where each ring starts and in which direction it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gnomon.topology.graph import NetworkNode
from gnomon.topology.packing import Ring

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Ints = NDArray[np.int_]

MAX_STARTS = 64
"""Places of one ring that are tried as its first node; a ring that spans more switches tries only these."""


class HopTable:
    """Hops between many pairs of nodes at once."""

    def __init__(self, nodes: Sequence[NetworkNode]) -> None:
        numbers: dict[str, int] = {}
        depth = max(len(node.path) for node in nodes)
        self.lengths = np.array([len(node.path) for node in nodes])
        self.paths = np.full((len(nodes), depth), -1)
        for index, node in enumerate(nodes):
            self.paths[index, : len(node.path)] = [numbers.setdefault(name, len(numbers)) for name in node.path]

    def hops(self, first: _Ints, second: _Ints) -> _Ints:
        """Return the hops between `first[i]` and `second[i]`, arrays of the same shape."""
        same = (self.paths[first] == self.paths[second]) & (self.paths[first] >= 0)
        shared = np.cumprod(same, axis=-1).sum(axis=-1)
        distance = self.lengths[first] + self.lengths[second] + 2 - 2 * shared
        return np.asarray(np.where(first == second, 0, distance))


def arrange(rings: Sequence[Ring], rings_per_stage: int, table: HopTable) -> list[Ring]:
    """Return the rings by stage, turned so that neighbouring stages and rings of one stage are near.

    Rings come in ascending order and keep it, so that neighbours in the tree become neighbours in the pipeline. Each
    ring then takes the start and direction with the fewest hops to the ring of the stage before and, among equal ones,
    to the ring before it in its own stage. Turning a ring leaves its own hops as they are.
    """
    placed: list[_Ints] = []
    for index, ring in enumerate(rings):
        choices = _turned(np.array(ring), table)
        costs = np.zeros((2, len(choices)), dtype=int)
        if index >= rings_per_stage:
            costs[0] = _hops_to(choices, placed[index - rings_per_stage], table)
        if index % rings_per_stage:
            costs[1] = _hops_to(choices, placed[index - 1], table)
        placed.append(choices[np.lexsort((costs[1], costs[0]))[0]])
    return [tuple(int(node) for node in ring) for ring in placed]


def open_at_longest_leg(ring: Ring, table: HopTable) -> Ring:
    """Return the ring turned so that the leg from its last node to its first is its longest."""
    nodes = np.array(ring)
    start = int(np.argmax(table.hops(np.roll(nodes, 1), nodes)))
    return tuple(int(node) for node in np.roll(nodes, -start))


def _turned(ring: _Ints, table: HopTable) -> _Ints:
    """Return the ring from each node that is not on the switch of the node before it, in both directions."""
    lengths = table.lengths[ring]
    nearest = table.paths[ring, lengths - 1]
    starts = np.flatnonzero(nearest != np.roll(nearest, 1))[:MAX_STARTS]
    starts = starts if len(starts) else np.array([0])
    forward = np.stack([np.roll(ring, -start) for start in starts])
    return np.concatenate([forward, forward[:, ::-1]])


def _hops_to(choices: _Ints, other: _Ints, table: HopTable) -> _Ints:
    return np.asarray(table.hops(choices, np.broadcast_to(other, choices.shape)).sum(axis=1))
