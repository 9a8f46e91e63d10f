"""What would fit, where a layout does not."""

import pytest

from gnomon.plan.alternatives import nearest_fitting
from gnomon.plan.inference import InferenceWorkload, plan_inference
from gnomon.plan.inference.alternatives import nearest_serving
from gnomon.plan.planner import plan
from gnomon.spec import Layout, Workload
from gnomon.spec.catalog import load_cluster, load_model

WORKLOAD = Workload(seq_len=8192, global_batch=64, micro_batch=1, precision="bf16", stack="megatron-core")


def test_layouts_of_the_same_ranks_come_first():
    estimate = plan(load_model("llama-3.1-70b"), load_cluster("dgx-h100", 8), Layout(dp=8, tp=8), WORKLOAD)
    found = nearest_fitting(estimate, plan)
    assert found
    for other in found:
        assert other.layout.num_ranks == 64
        again = plan(estimate.model, estimate.cluster, other.layout, other.workload)
        assert again.fits
        assert again.step_time_s == other.step_time_s


def test_more_ranks_are_tried_where_none_of_the_same_fits():
    model, cluster = load_model("llama-3.1-405b"), load_cluster("dgx-h100", 1)
    found = nearest_fitting(plan(model, cluster, Layout(tp=8), WORKLOAD), plan)
    ranks = {other.layout.num_ranks for other in found}
    assert len(ranks) == 1
    assert ranks.pop() > 8
    for other in found:
        nodes = other.changes["num_nodes"]
        assert plan(model, load_cluster("dgx-h100", nodes), other.layout, other.workload).fits
        assert nodes * 8 == other.layout.num_ranks


def test_no_alternative_has_a_change_that_brings_nothing():
    estimate = plan(load_model("llama-3.1-405b"), load_cluster("dgx-h100", 1), Layout(tp=8), WORKLOAD)
    found = nearest_fitting(estimate, plan)
    for one in found:
        for other in found:
            more = set(other.changes.items()) > set(one.changes.items())
            assert not more or other.step_time_s < one.step_time_s


def test_a_mixture_of_experts_is_offered_more_expert_parallelism():
    workload = WORKLOAD.model_copy(update={"seq_len": 4096})
    layout = Layout(dp=8, tp=1, pp=4, zero_stage=1)
    estimate = plan(load_model("mixtral-8x7b"), load_cluster("dgx-h100", 4), layout, workload)
    assert estimate.fits is False
    assert any("ep" in other.changes for other in nearest_fitting(estimate, plan))


@pytest.mark.parametrize(("tp", "names"), [(1, {"batch", "tp"})])
def test_a_served_model_is_offered_a_smaller_batch_and_more_ranks(tp, names):
    workload = InferenceWorkload(prompt_len=2048, output_len=256, batch=64, compute_precision="fp8")
    estimate = plan_inference(load_model("llama-3.3-70b"), load_cluster("dgx-h100"), Layout(tp=tp), workload)
    assert estimate.fits is False
    found = nearest_serving(estimate)
    assert names <= {name for changes, _ in found for name in changes}
    assert all(other.fits for _, other in found)
