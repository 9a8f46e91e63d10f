"""Distances and bounds on random trees, against trying every order."""

from itertools import combinations, pairwise, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.topology.graph import NetworkNode, Topology, hops, to_networkx
from gnomon.topology.steiner import chain_bound, crossed_links, pair_hops, ring_bound


@st.composite
def nodes(draw, max_nodes=6):
    """Draw machines at any level below one or several spines; a switch is named by its path."""
    paths = draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=max_nodes))
    return [
        NetworkNode(name=f"n{index}", path=tuple("".join(map(str, path[: level + 1])) for level in range(len(path))))
        for index, path in enumerate(paths)
    ]


@given(nodes())
def test_hops_are_a_distance_in_the_drawn_tree(members):
    import networkx

    tree = to_networkx(Topology(nodes=tuple(members))).to_undirected()
    assert networkx.is_tree(tree)
    for first in members:
        for second in members:
            path = networkx.shortest_path_length(tree, ("node", first.name), ("node", second.name))
            assert hops(first, second) == path


@settings(deadline=None)
@given(nodes())
def test_bounds_are_reached_by_the_best_order_and_by_no_better_one(members):
    orders = list(permutations(members))
    chains = [sum(hops(a, b) for a, b in pairwise(order)) for order in orders]
    rings = [chain + hops(order[-1], order[0]) for chain, order in zip(chains, orders, strict=True)]
    assert ring_bound(members) == min(rings)
    assert chain_bound(members) == min(chains)
    assert pair_hops(members) == sum(hops(a, b) for a, b in combinations(members, 2))


@given(nodes(max_nodes=10))
def test_a_depth_first_order_is_a_best_ring(members):
    ordered = sorted(members, key=lambda node: (node.path, node.name))
    assert sum(hops(a, b) for a, b in pairwise([*ordered, ordered[0]])) == ring_bound(members)
    assert ring_bound(members) == 2 * len(crossed_links(members))
