"""Distances of process groups: figures by hand, and those of dlcalc's topoeval."""

import pytest

from gnomon.spec import Layout
from gnomon.topology.evaluate import PlacementEvaluation, evaluate, evaluate_nodes, legs
from gnomon.topology.graph import NetworkNode, Topology, TopologyError
from gnomon.topology.groups import NodeGroup
from topology_fixtures import binary_tree, star


@pytest.mark.parametrize(("num_nodes", "ring_hops"), [(8, 20), (64, 160), (256, 640), (1024, 2560)])
def test_the_rings_that_topoeval_walks_have_its_lengths(num_nodes, ring_hops):
    evaluation = evaluate(binary_tree(num_nodes, ranked=True), Layout(tp=8, pp=2, dp=num_nodes // 2))
    data = evaluation.kind("dp")
    assert [item.total_hops for item in data.groups] == [ring_hops, ring_hops]
    assert [item.mean_hops for item in data.groups] == [5.0, 5.0]
    assert [item.group.label for item in data.groups] == ["pp 0, tp 0", "pp 1, tp 0"]
    assert (data.num_groups, data.worst_hops, data.mean_hops) == (16, 6, 5.0)
    assert data.total_hops == 16 * ring_hops
    # each of m nodes, 4 leaves and 2 mids is reached by one link, crossed twice
    assert data.groups[0].ideal_hops == 2 * (num_nodes // 2 + 4 + 2)


def test_what_crosses_each_level_by_hand():
    evaluation = evaluate(binary_tree(8, ranked=True), Layout(tp=8, pp=2, dp=4))
    data, pipeline = evaluation.kind("dp"), evaluation.kind("pp")
    loads = [(load.level, load.link, load.groups) for load in data.busiest_links]
    # both stages reach over every switch with 8 rings each; a node carries the rings of its stage
    assert loads == [(1, "mid0 - root", 16), (2, "leaf0 - mid0", 16), (3, "node0000 - leaf0", 8)]
    # node i and node i + 4 share a leaf
    assert (pipeline.total_hops, pipeline.ideal_hops, pipeline.num_groups) == (32 * 2, 32 * 2, 32)
    assert [load.level for load in pipeline.busiest_links] == [3]
    assert evaluation.kind("tp") is None
    assert evaluation.kind("cp") is None
    assert evaluation.total_hops == data.total_hops + pipeline.total_hops == 16 * 20 + 64


def test_a_chain_need_not_return_and_experts_meet_in_pairs():
    nodes = star(2, 1).nodes  # a a | b
    chain = evaluate_nodes(nodes, Layout(pp=3), 1).kind("pp")
    assert (chain.traversal, chain.total_hops, chain.ideal_hops) == ("chain", 2 + 4, 6)
    detour = evaluate_nodes((nodes[0], nodes[2], nodes[1]), Layout(pp=3), 1).kind("pp")
    assert (detour.total_hops, detour.ideal_hops) == (4 + 4, 6)
    pairs = evaluate_nodes(nodes, Layout(dp=3, ep=3), 1).kind("ep")
    assert (pairs.traversal, pairs.total_hops, pairs.ideal_hops, pairs.worst_hops) == ("pairs", 10, 10, 4)


def test_a_ring_of_two_goes_there_and_back():
    data = evaluate_nodes(star(2).nodes, Layout(dp=2), 1).kind("dp")
    assert (data.total_hops, data.mean_hops, data.ideal_hops) == (4, 2.0, 4)
    assert legs(NodeGroup(kind="dp", label="", first_rank=0, node_ranks=(0, 1))) == [(0, 1), (1, 0)]


def test_links_above_several_spines_say_that_nothing_is_known():
    nodes = (NetworkNode(name="a", path=("s1",), rank=0), NetworkNode(name="b", path=("s2",), rank=1))
    evaluation = evaluate(Topology(nodes=nodes), Layout(dp=2), 1)
    assert evaluation.spines == ("s1", "s2")
    assert evaluation.kinds[0].busiest_links[0].link == "s1 - no common switch known"
    assert evaluation.kinds[0].total_hops == 8


def test_a_job_of_another_size_is_refused():
    with pytest.raises(TopologyError, match=r"needs 4 nodes, but 8 nodes of the topology have a rank"):
        evaluate(binary_tree(8, ranked=True), Layout(tp=8, dp=4))


def job_on(*accelerators):
    return Topology(
        nodes=tuple(
            NetworkNode(name=f"n{rank}", path=("s",), rank=rank, accelerators=count)
            for rank, count in enumerate(accelerators)
        )
    )


def test_ranks_need_as_many_accelerators():
    with pytest.raises(TopologyError) as error:
        evaluate(job_on(8, 4, 2), Layout(tp=8, dp=3))
    assert "needs 3 nodes, with 8 ranks on each, but 2 nodes of the job have fewer accelerators: 'n1' has 4" in str(
        error.value
    )
    assert "Set --accelerators-per-node" in str(error.value)
    assert evaluate(job_on(4, 4), Layout(tp=4, dp=2), 4).kind("dp").total_hops == 4 * 4


def test_ranks_fit_on_accelerators_that_are_unknown_or_that_they_leave_unused():
    assert evaluate(job_on(None, 16), Layout(tp=16, dp=2), 16).kind("dp").total_hops == 16 * 4
    assert evaluate(job_on(4), Layout(tp=4)).kinds == ()
    with pytest.raises(TopologyError, match="with 4 ranks on each, but 1 node of the job has fewer"):
        evaluate(job_on(2), Layout(tp=4))


def test_an_evaluation_says_what_its_source_assumed():
    topology = Topology(nodes=job_on(8).nodes, source="there (all assumed)")
    assert evaluate(topology, Layout(tp=8)).source == "there (all assumed)"


def test_an_evaluation_survives_json(tmp_path):
    evaluation = evaluate(binary_tree(8, ranked=True), Layout(tp=8, pp=2, dp=4))
    assert PlacementEvaluation.load(evaluation.save(tmp_path / "e.json")) == evaluation
