"""The smallest subtree that joins some nodes, and what crosses its links.

A link is named by its lower end: a switch or a node. The subtree that joins a set of g nodes consists of the links with
0 < k < g of these nodes below them. Every closed walk through the nodes crosses each of these links at least twice,
and the order of a depth-first search crosses it exactly twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from gnomon.topology.graph import NetworkNode, hops


class Link(NamedTuple):
    """The link above `name`; `level` is the number of switches above its lower end, 0 for that of a spine."""

    level: int
    name: str
    above: str
    is_node: bool


def crossed_links(nodes: Sequence[NetworkNode]) -> dict[Link, int]:
    """Return the links of the subtree that joins distinct nodes, and how many of the nodes are below each."""
    below = Counter(link for node in nodes for link in _links(node))
    return {link: count for link, count in below.items() if count < len(nodes)}


def ring_bound(nodes: Sequence[NetworkNode]) -> int:
    """Return the fewest hops of a closed ring through distinct nodes: each link of their subtree twice."""
    return 2 * len(crossed_links(nodes))


def chain_bound(nodes: Sequence[NetworkNode]) -> int:
    """Return the fewest hops of an open chain through distinct nodes, from any one to any other.

    A closed walk crosses each link twice; leaving it open saves the way back between its ends, at best the diameter.
    """
    if len(nodes) < 2:
        return 0
    end = max(nodes, key=lambda node: hops(nodes[0], node))
    return ring_bound(nodes) - max(hops(end, node) for node in nodes)


def pair_hops(nodes: Sequence[NetworkNode]) -> int:
    """Return the hops between all pairs of distinct nodes: k (g - k) pairs cross a link with k of g nodes below it."""
    return sum(count * (len(nodes) - count) for count in crossed_links(nodes).values())


def _links(node: NetworkNode) -> list[Link]:
    above = ("", *node.path)
    links = [Link(level, name, above[level], False) for level, name in enumerate(node.path)]
    return [*links, Link(len(node.path), node.name, node.path[-1], True)]
