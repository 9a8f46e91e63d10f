"""How long a step waits for the slowest of equal devices."""

import numpy as np
import pytest

from gnomon.plan.planner import plan
from gnomon.plan.stragglers import expected_largest
from gnomon.spec import Layout, Workload
from gnomon.spec.catalog import load_cluster, load_model

WORK = Workload(seq_len=2048, global_batch=1024, micro_batch=1, precision="bf16", stack="megatron-core")


@pytest.mark.parametrize(
    ("ranks", "exact"),  # expected largest of n standard normal numbers (Harter, Biometrika 48 (1961) 151)
    [(1, 0.0), (2, 0.56419), (8, 1.42360), (64, 2.34373), (100, 2.50759), (1000, 3.24144)],
)
def test_the_expected_largest_of_normal_numbers(ranks, exact):
    assert expected_largest(np.array([float(ranks)]))[0] == pytest.approx(exact, rel=0.05, abs=1e-12)


def test_the_slowest_of_many_ranks_is_waited_for():
    model, times = load_model("llama-3.1-8b"), []
    for nodes in (1, 8, 64):
        cluster = load_cluster("dgx-h100", num_nodes=nodes)
        even = cluster.model_copy(update={"rates": cluster.rates.model_copy(update={"variation": 0.0})})
        layout = Layout(dp=nodes, tp=8, zero_stage=1)
        with_, without = (plan(model, c, layout, WORK).step_time_s for c in (cluster, even))
        times.append(with_ / without - 1.0)
    # of the compute time, 1.5% for each standard deviation by which the slowest of 8, 64 and 512 exceeds the mean
    assert times == sorted(times)
    assert times[0] == pytest.approx(0.015 * 1.42, rel=0.1)
    assert 0.75 * 0.015 * 3.04 < times[2] < 1.05 * 0.015 * 3.04


def test_one_device_waits_for_nobody():
    cluster = load_cluster("dgx-h100", num_nodes=1)
    even = cluster.model_copy(update={"rates": cluster.rates.model_copy(update={"variation": 0.0})})
    work = WORK.model_copy(update={"global_batch": 8, "seq_len": 1024})
    one, other = (plan(load_model("gpt2"), each, Layout(), work).step_time_s for each in (cluster, even))
    assert one == other
