"""Networks for the tests of topology."""

from __future__ import annotations

from gnomon.topology.graph import NetworkNode, Topology


def binary_tree(num_nodes: int, ranked: bool = False) -> Topology:
    """Return root, two mids and four leaves, with nodes dealt to the leaves in turn; ranks in that order."""
    nodes = []
    for index in range(num_nodes):
        leaf = index % 4
        path = ("root", f"mid{leaf // 2}", f"leaf{leaf}")
        nodes.append(NetworkNode(name=f"node{index:04d}", path=path, rank=index if ranked else None))
    return Topology(nodes=tuple(nodes))


def star(*sizes: int) -> Topology:
    """Return leaves of the given numbers of nodes below one spine."""
    return Topology(
        nodes=tuple(
            NetworkNode(name=f"leaf{leaf:02d}-{index:03d}", path=("spine", f"leaf{leaf:02d}"))
            for leaf, size in enumerate(sizes)
            for index in range(size)
        )
    )
