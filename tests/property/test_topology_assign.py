"""The best placement on small trees, found by trying everything, against the algorithms."""

from functools import cache
from itertools import combinations, pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.spec import Layout
from gnomon.topology.assign import assign
from gnomon.topology.bound import crossings_bound
from gnomon.topology.branch import build_branch, depth_first
from gnomon.topology.exact import find_rings, partitions
from gnomon.topology.graph import NetworkNode, Topology, hops
from gnomon.topology.one_ring import best_ring, rings_one_by_one
from gnomon.topology.packing import crossings, fewest_parts, make_packing, pack

NO_LIMIT = 10**9


def fewest_ring_hops(nodes, num_rings, ring_size):
    """Try every choice of disjoint rings and every order of each."""

    @cache
    def ring_hops(members):
        first, *rest = members
        orders = ((first, *order, first) for order in permutations(rest))
        return min(sum(hops(nodes[a], nodes[b]) for a, b in pairwise(order)) for order in orders)

    @cache
    def best(left, num_rings):
        if num_rings == 0:
            return 0
        found = [
            ring_hops(ring) + best(tuple(node for node in left[1:] if node not in ring), num_rings - 1)
            for others in combinations(left[1:], ring_size - 1)
            for ring in [(left[0], *others)]
            if len(left) >= num_rings * ring_size
        ]
        spare = [best(left[1:], num_rings)] if len(left) > num_rings * ring_size else []
        return min(found + spare)

    return best(tuple(range(len(nodes))), num_rings)


def shapes(leaves):
    """Yield all trees with so many leaves in which every switch has two or more things below it, as nested tuples."""
    if leaves == 1:
        yield ()
        return
    for sizes in partitions(leaves, leaves - 1, leaves):
        yield from _forests(sizes)


def _forests(sizes):
    if not sizes:
        yield ()
        return
    for first in shapes(sizes[0]):
        for rest in _forests(sizes[1:]):
            if not rest or sizes[1] != sizes[0] or first >= rest[0]:
                yield (first, *rest)


def nodes_of(shape, path=("spine",)):
    nodes = []
    for index, below in enumerate(shape):
        name = f"{path[-1]}.{index}"
        nodes.extend(nodes_of(below, (*path, name)) if below else [NetworkNode(name=name, path=path)])
    return nodes


def sizes_that_fit(num_nodes):
    return [(r, m) for m in range(2, num_nodes + 1) for r in range(1, num_nodes // m + 1)]


def test_all_shapes_are_there():
    # series-reduced planted trees with n leaves: OEIS A000669
    assert [sum(1 for _ in shapes(leaves)) for leaves in range(1, 8)] == [1, 1, 2, 5, 12, 33, 90]


@pytest.mark.parametrize("num_nodes", [2, 3, 4, 5, 6, 7])
def test_assignments_on_all_small_trees_are_the_best(num_nodes):
    for shape in shapes(num_nodes):
        nodes = nodes_of(shape)
        for num_rings, ring_size in sizes_that_fit(num_nodes):
            best = fewest_ring_hops(nodes, num_rings, ring_size)
            # one pipeline stage for each ring, or one stage with a context group across the rings
            for layout in (Layout(pp=num_rings, dp=ring_size), Layout(cp=num_rings, dp=ring_size)):
                assignment = assign(Topology(nodes=tuple(nodes)), layout, 1)
                rings = assignment.evaluation.kind("dp").groups
                assert assignment.is_optimal
                assert sum(ring.total_hops for ring in rings) == assignment.ring_hops == best, (shape, layout)
                assert assignment.lower_bound_hops == best


@st.composite
def networks(draw, max_nodes=8):
    """Draw a tree with chains of switches, machines at any level and one or several spines."""
    paths = draw(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=2, max_size=max_nodes))
    nodes = []
    for number, choices in enumerate(paths):
        path = ["x"]
        for choice in choices:
            path.append(f"{path[-1]}{choice}")
        nodes.append(NetworkNode(name=f"n{number}", path=tuple(path[1:])))
    return depth_first(nodes)


@st.composite
def problems(draw, max_nodes=8):
    nodes = draw(networks(max_nodes))
    return nodes, *draw(st.sampled_from(sizes_that_fit(len(nodes))))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_every_part_of_the_solution_on_uneven_trees(problem):
    nodes, num_rings, ring_size = problem
    paths = [node.path for node in nodes]
    branch = build_branch(nodes)
    least = (fewest_ring_hops(nodes, num_rings, ring_size) - 2 * num_rings * ring_size) // 2
    exact = make_packing(find_rings(branch, num_rings, ring_size, NO_LIMIT, NO_LIMIT), paths)
    _check_rings(exact.rings, num_rings, ring_size)
    assert exact.crossings == least
    assert find_rings(branch, num_rings, ring_size, least, NO_LIMIT) is None
    assert crossings_bound(nodes, num_rings, ring_size) <= least
    single = best_ring(branch, ring_size)
    assert crossings(single, paths) * num_rings <= least
    if num_rings == 1:
        assert crossings(single, paths) == least
    for rings in (pack(branch, paths, num_rings, ring_size).rings, rings_one_by_one(nodes, num_rings, ring_size)):
        _check_rings(rings, num_rings, ring_size)
        assert make_packing(rings, paths).crossings >= least


def _check_rings(rings, num_rings, ring_size):
    assert [len(ring) for ring in rings] == [ring_size] * num_rings
    assert len({node for ring in rings for node in ring}) == num_rings * ring_size


@settings(max_examples=100, deadline=None)
@given(problems(max_nodes=14), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_the_order_of_the_nodes(problem, random):
    nodes, num_rings, ring_size = problem
    layout = Layout(pp=num_rings, dp=ring_size)
    expected = assign(Topology(nodes=tuple(nodes)), layout, 1)
    random.shuffle(nodes)
    assert assign(Topology(nodes=tuple(nodes)), layout, 1) == expected
    assert expected.lower_bound_hops <= expected.ring_hops
    assert expected.evaluation.kind("dp").total_hops == expected.ring_hops
    assert sorted(set(expected.node_names)) == sorted(expected.node_names)


@given(st.dictionaries(st.integers(1, 9), st.integers(1, 4), max_size=5), st.integers(1, 20))
def test_the_fewest_parts_are_found(counts, total):
    parts = sorted((size for size, count in counts.items() for _ in range(count)), reverse=True)
    sums = {0: 0}
    for part in parts:
        for reached, used in list(sums.items()):
            sums[reached + part] = min(sums.get(reached + part, NO_LIMIT), used + 1)
    found = fewest_parts(counts, total)
    assert (found is None) == (total not in sums)
    if found is not None:
        assert (sum(found), len(found)) == (total, sums[total])
        assert all(found.count(size) <= counts[size] for size in found)
