"""Placements: dlcalc's figures, the order of ranks, speed, and jobs that do not fit."""

import time

import pytest

from gnomon.errors import LayoutError
from gnomon.spec import Layout
from gnomon.topology.assign import Assignment, assign
from gnomon.topology.branch import build_branch, depth_first
from gnomon.topology.evaluate import evaluate
from gnomon.topology.exact import WorkLimitError, find_rings
from gnomon.topology.graph import NetworkNode, Topology, TopologyError
from gnomon.topology.render import verdict
from topology_fixtures import binary_tree, star


@pytest.mark.parametrize(("num_nodes", "topoassign_hops"), [(8, 12), (64, 68), (256, 260), (1024, 1028)])
def test_rings_are_no_longer_than_those_of_topoassign(num_nodes, topoassign_hops):
    assignment = assign(binary_tree(num_nodes), Layout(tp=8, pp=2, dp=num_nodes // 2))
    rings = [item.total_hops for item in assignment.evaluation.kind("dp").groups]
    assert rings == [topoassign_hops, topoassign_hops]
    assert assignment.is_optimal
    assert assignment.ring_hops == assignment.lower_bound_hops == 2 * topoassign_hops
    assert assignment.evaluation.kind("dp").ideal_hops == assignment.evaluation.kind("dp").total_hops


def test_stages_are_neighbours_and_run_in_the_same_direction():
    names = assign(binary_tree(8), Layout(tp=8, pp=2, dp=4)).node_names
    # leaves in order of name; stage 0 on mid0, stage 1 on mid1
    assert names == tuple(f"node{index:04d}" for index in (0, 4, 1, 5, 2, 6, 3, 7))


def test_a_ring_that_shares_a_switch_with_the_next_stage_is_turned_towards_it():
    # 6 + 6 + 6 nodes for two rings of 9: both reach into the leaf in the middle
    assignment = assign(star(6, 6, 6), Layout(pp=2, dp=9), 1)
    pipeline = assignment.evaluation.kind("pp")
    assert assignment.ring_hops == 2 * (2 * 9 + 2 * 2)
    lengths = [item.total_hops for item in pipeline.groups]
    assert lengths.count(2) == 3  # the three nodes of each that share the leaf are partners
    assert pipeline.total_hops == 3 * 2 + 6 * 4


def test_a_cheaper_split_is_found_where_slices_are_not_best():
    # slices of 4 in order of size are 3+1, 2+2 and 2+1+1, 7 reaches into leaves; 3+1, 3+1 and 2+2 are 6
    assignment = assign(star(3, 3, 2, 2, 1, 1), Layout(pp=3, dp=4), 1)
    stages = [assignment.node_names[start : start + 4] for start in range(0, 12, 4)]
    assert assignment.is_optimal
    assert assignment.ring_hops == 2 * (3 * 4 + 6)
    assert all(len({name[:6] for name in stage}) == 2 for stage in stages)


def test_context_groups_are_interleaved():
    # cp 2 over two nodes: node ranks 0 and 1 are one replica
    assignment = assign(star(4, 4), Layout(tp=1, cp=2, dp=4), 1)
    assert [name[:6] for name in assignment.node_names] == ["leaf00", "leaf01"] * 4
    assert [item.total_hops for item in assignment.evaluation.kind("dp").groups] == [8, 8]


def test_without_data_rings_between_nodes_the_nodes_are_near():
    nodes = [*star(2, 5).nodes, NetworkNode(name="far", path=("elsewhere",))]
    assignment = assign(Topology(nodes=tuple(nodes)), Layout(pp=5, tp=8), 8)
    assert {name[:6] for name in assignment.node_names} == {"leaf01"}
    assert assignment.evaluation.kind("pp").total_hops == 8 * 4 * 2


def test_a_chain_of_stages_opens_at_its_longest_leg():
    # closed ring a a b b: 2 + 4 + 2 + 4; the chain leaves out one of the legs of 4
    chain = assign(star(2, 2), Layout(pp=4), 1).evaluation.kind("pp")
    assert chain.total_hops == chain.ideal_hops == 8


@pytest.mark.parametrize(
    "layout", [Layout(tp=8, pp=4), Layout(tp=16, pp=2), Layout(tp=2, dp=4, pp=4), Layout(tp=8), Layout(tp=2, dp=2)]
)
def test_rings_that_stay_in_their_nodes_have_no_hops(layout):
    assignment = assign(star(4, 4), layout)
    assert assignment.evaluation.kind("dp") is None
    assert (assignment.ring_hops, assignment.lower_bound_hops, assignment.is_optimal) == (0, 0, True)
    assert verdict(assignment).startswith("No data-parallel ring leaves its node")


@pytest.mark.parametrize("layout", [Layout(tp=8, dp=4), Layout(tp=8, pp=2, dp=3), Layout(tp=16, dp=2), Layout(dp=16)])
def test_the_hops_of_the_rings_are_those_that_are_evaluated(layout):
    assignment = assign(star(3, 2, 3), layout)
    rings = assignment.evaluation.kind("dp").groups
    assert assignment.ring_hops == sum(ring.total_hops for ring in rings) > 0


def test_a_job_of_one_node_takes_the_first():
    assert assign(star(2), Layout(tp=4)).node_names == ("leaf00-000",)


def test_busy_small_and_running_nodes_are_left_alone():
    nodes = [node.model_copy(update={"busy": index == 0}) for index, node in enumerate(star(4).nodes)]
    nodes[1] = nodes[1].model_copy(update={"rank": 0})
    nodes[2] = nodes[2].model_copy(update={"accelerators": 4})
    topology = Topology(nodes=tuple(nodes))
    assert assign(topology, Layout(tp=8)).node_names == ("leaf00-003",)
    with pytest.raises(
        TopologyError, match=r"needs 2 nodes, but only 1 of the 4 nodes are free \(1 more are free but smaller\)"
    ):
        assign(topology, Layout(tp=8, dp=2))
    assert assign(topology, Layout(tp=4)).node_names == ("leaf00-002",)  # the job leaves half of -n unused


def test_nodes_whose_accelerators_are_unknown_are_taken():
    assert assign(star(2), Layout(tp=16, dp=2), 16).node_names == ("leaf00-000", "leaf00-001")


def test_an_assignment_says_what_its_source_left_out():
    topology = Topology(nodes=star(2).nodes, source="here (4 nodes left out)")
    assignment = assign(topology, Layout(tp=8))
    assert assignment.source == assignment.evaluation.source == "here (4 nodes left out)"
    assert Assignment.from_mapping(assignment.to_mapping()) == assignment


def test_stages_that_end_in_a_node_are_refused():
    with pytest.raises(LayoutError, match="dp x cp x tp = 12 ranks end in the middle of a node of 8"):
        assign(star(8), Layout(pp=2, tp=4, dp=3))


def test_the_exact_search_stops_at_its_limit():
    nodes = depth_first(star(*[7] * 30).nodes)
    with pytest.raises(WorkLimitError):
        find_rings(build_branch(nodes), 21, 10, 10**9, max_work=1000)
    assignment = assign(star(*[7] * 30), Layout(pp=21, dp=10), 1, max_work=1000)
    assert assignment.is_optimal == (assignment.ring_hops == assignment.lower_bound_hops)


def test_an_assignment_can_be_evaluated_as_a_job(tmp_path):
    topology, layout = binary_tree(16), Layout(tp=8, pp=2, dp=4)
    assignment = assign(topology, layout)
    rank = {name: index for index, name in enumerate(assignment.node_names)}
    nodes = tuple(node.model_copy(update={"rank": rank.get(node.name)}) for node in topology.nodes)
    assert evaluate(Topology(nodes=nodes), layout) == assignment.evaluation
    assert Assignment.load(assignment.save(tmp_path / "a.json")) == assignment


@pytest.mark.parametrize(
    "layout", [Layout(tp=8, pp=8, dp=64, cp=4), Layout(tp=8, dp=4096), Layout(tp=8, dp=2, pp=2500)]
)
def test_ten_thousand_nodes_take_seconds(layout):
    nodes = tuple(
        NetworkNode(name=f"n{i:05d}", path=(f"spine{i // 2048}", f"mid{i // 128}", f"leaf{i // 8}"), busy=i % 7 == 0)
        for i in range(10_000)
    )
    start = time.process_time()
    assignment = assign(Topology(nodes=nodes), layout)
    assert time.process_time() - start < 6  # two on a free machine
    assert assignment.ring_hops <= 1.03 * assignment.lower_bound_hops
