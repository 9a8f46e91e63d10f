"""Machines, the switches above them and the distances between them."""

import pytest

from gnomon.errors import SpecError
from gnomon.topology.graph import (
    NO_COMMON_SWITCH,
    ROOT,
    NetworkNode,
    Topology,
    TopologyError,
    common_switches,
    hops,
    to_networkx,
)


def node(name, *path, **fields):
    return NetworkNode(name=name, path=path, **fields)


A = node("a", "spine", "mid", "leaf1")
B = node("b", "spine", "mid", "leaf1")
C = node("c", "spine", "mid", "leaf2")
D = node("d", "spine", "edge")
E = node("e", "other", "leaf9")


@pytest.mark.parametrize(
    ("first", "second", "expected", "common"),
    [
        (A, A, 0, ("spine", "mid", "leaf1")),
        (A, B, 2, ("spine", "mid", "leaf1")),
        (A, C, 4, ("spine", "mid")),
        (A, D, 5, ("spine",)),  # three links up, two down
        (A, E, 7, ()),  # four links up to the implied root, three down
        (D, E, 6, ()),
    ],
)
def test_hops_go_through_the_nearest_common_switch(first, second, expected, common):
    assert hops(first, second) == hops(second, first) == expected
    assert common_switches(first, second) == common


def test_several_spines_are_joined_by_an_implied_root():
    topology = Topology(nodes=(A, E))
    graph = to_networkx(topology)
    assert topology.spines == ("other", "spine")
    assert graph.nodes[ROOT]["label"] == NO_COMMON_SWITCH
    assert set(graph.successors(ROOT)) == {("switch", "spine"), ("switch", "other")}
    assert graph.nodes["node", "a"] == {"label": "a", "level": 4, "node": A}


def test_one_spine_is_the_root():
    graph = to_networkx(Topology(nodes=(A, B, C, D)))
    assert [key for key, degree in graph.in_degree() if degree == 0] == [("switch", "spine")]
    assert graph.number_of_edges() == graph.number_of_nodes() - 1 == 8
    assert graph.nodes["switch", "spine"]["level"] == 0


def test_a_machine_may_be_named_like_a_switch():
    graph = to_networkx(Topology(nodes=(node("x", "x"), node("y", "x"))))
    assert set(graph.successors(("switch", "x"))) == {("node", "x"), ("node", "y")}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "at least one node"),
        ([A, A], "node name 'a' occurs twice"),
        ([node("a", "s", rank=1), node("b", "s", rank=1)], "rank 1 occurs twice"),
        (
            [node("a", "s", "leaf"), node("b", "t", "leaf")],
            "switch 'leaf' has two parents: it is below 's' for node 'a'",
        ),
        ([node("a", "s", "t"), node("b", "t")], "switch 't' has two parents.*and a spine for node 'b'"),
        ([node("a", "s", "t", "s")], "path of node 'a' passes a switch twice: s > t > s"),
    ],
)
def test_what_is_not_a_tree_of_machines_is_refused(nodes, message):
    with pytest.raises(SpecError, match=message):
        Topology.from_mapping({"nodes": [item.to_mapping() for item in nodes]})


def test_a_node_without_a_switch_is_refused():
    with pytest.raises(SpecError, match="at least 1 item"):
        Topology.from_mapping({"nodes": [{"name": "a", "path": []}]})


def test_job_and_free_nodes_have_an_order():
    topology = Topology(
        nodes=(
            node("z", "s"),
            node("b", "s", rank=1),
            node("a", "s"),
            node("c", "s", rank=0),
            node("d", "s", busy=True),
        )
    )
    assert [item.name for item in topology.job] == ["c", "b"]
    assert [item.name for item in topology.free] == ["a", "z"]


def test_a_gap_in_the_ranks_is_refused():
    with pytest.raises(TopologyError, match="no node has rank 1 and 'b' has rank 2"):
        Topology(nodes=(node("a", "s", rank=0), node("b", "s", rank=2))).job  # noqa: B018


def test_a_topology_survives_json_and_yaml(tmp_path):
    topology = Topology(nodes=(A, node("q", "spine", "w", rank=0, accelerators=4, labels={"zone": "a"})), source="here")
    assert Topology.load(topology.save(tmp_path / "t.yaml")) == topology
    assert Topology.load(topology.save(tmp_path / "t.json")) == topology


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "a,b", "node[1-2]", "a\x01b", "a\x1b[31m", "a\x7f", "a\u202eb", "a\u200bb"]
)
def test_a_host_name_that_would_break_a_hostfile_is_refused(name):
    with pytest.raises(SpecError, match="no blanks, commas and brackets, no control characters") as error:
        NetworkNode.from_mapping({"name": name, "path": ["s"]})
    assert str(error.value).isprintable()


def test_errors_about_names_cannot_steer_a_terminal():
    assert str(TopologyError("leaf\x1b[31m")) == r"leaf\x1b[31m"
    leaf, spine = "leaf\x1b[31m", "spine\x1b[31m"
    for nodes in (
        [node("a", "s", leaf), node("b", spine, leaf)],
        [node("a", leaf, "t", leaf)],
    ):
        with pytest.raises(SpecError) as error:
            Topology.from_mapping({"nodes": [item.to_mapping() for item in nodes]})
        assert r"leaf\x1b[31m" in str(error.value)
        assert str(error.value).isprintable()


@pytest.mark.parametrize(("accelerators", "ranks", "fits"), [(8, 8, True), (8, 9, False), (None, 99, True)])
def test_a_machine_holds_as_many_ranks_as_it_has_accelerators(accelerators, ranks, fits):
    assert node("a", "s", accelerators=accelerators).holds(ranks) is fits
