"""Process groups as node sequences."""

import pytest

from gnomon.errors import LayoutError
from gnomon.spec import Layout
from gnomon.topology.groups import num_nodes, process_groups


def nodes_of(layout, kind, per_node=8):
    return [(group.node_ranks, group.copies) for group in process_groups(layout, per_node)[kind]]


def test_one_tensor_group_per_node():
    layout = Layout(tp=8, pp=2, dp=4)
    assert nodes_of(layout, "tp") == [((node,), 1) for node in range(8)]
    assert nodes_of(layout, "dp") == [((0, 1, 2, 3), 8), ((4, 5, 6, 7), 8)]  # one ring for each accelerator
    assert nodes_of(layout, "pp") == [((0, 4), 8), ((1, 5), 8), ((2, 6), 8), ((3, 7), 8)]
    assert nodes_of(layout, "cp") == [((node,), 8) for node in range(8)]
    assert [group.label for group in process_groups(layout, 8)["dp"]] == ["pp 0, tp 0", "pp 1, tp 0"]


def test_several_replicas_on_a_node_are_visited_together():
    # tp 2: ranks 0 and 1 are replica 0; a node of 8 holds replicas 0 to 3
    assert nodes_of(Layout(tp=2, dp=12), "dp") == [((0, 1, 2), 2)]


def test_context_groups_between_nodes_make_data_rings_stride():
    layout = Layout(tp=8, cp=2, dp=3)
    assert nodes_of(layout, "cp") == [((0, 1), 8), ((2, 3), 8), ((4, 5), 8)]
    assert nodes_of(layout, "dp") == [((0, 2, 4), 8), ((1, 3, 5), 8)]


def test_tensor_groups_between_nodes():
    layout = Layout(tp=16, dp=2)
    assert nodes_of(layout, "tp") == [((0, 1), 1), ((2, 3), 1)]
    assert nodes_of(layout, "dp") == [((0, 2), 8), ((1, 3), 8)]


def test_experts_share_the_ranks_of_a_stage():
    # 2 stages of 16 ranks on 2 nodes; ep 8 fills a node, ep 16 needs both
    assert nodes_of(Layout(pp=2, dp=16, ep=8), "ep") == [((0,), 1), ((1,), 1), ((2,), 1), ((3,), 1)]
    assert nodes_of(Layout(pp=2, dp=16, ep=16), "ep") == [((0, 1), 1), ((2, 3), 1)]
    assert nodes_of(Layout(dp=8, tp=2, ep=8, expert_tp=2), "ep") == [((0, 1), 2)]


def test_stages_may_share_a_node():
    assert nodes_of(Layout(pp=4, dp=2, tp=2), "pp") == [((0, 1), 4)]  # stages 0 and 1 on node 0, 2 and 3 on node 1
    assert nodes_of(Layout(pp=4, dp=2, tp=2), "dp") == [((0,), 4), ((1,), 4)]


def test_a_small_job_takes_one_node():
    assert num_nodes(Layout(tp=2), 8) == 1
    assert nodes_of(Layout(tp=2), "tp") == [((0,), 1)]


def test_ranks_that_do_not_fill_nodes_are_refused():
    with pytest.raises(LayoutError, match=r"is 12 ranks, which do not fill whole nodes of 8"):
        process_groups(Layout(tp=4, dp=3), 8)
