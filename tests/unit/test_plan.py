"""The planner against numbers that can be checked by hand."""

import dataclasses

import numpy as np
import pytest

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.communication import exposed_s, gradient_buckets, ring_all_reduce_s
from gnomon.plan.evaluate import evaluate, num_parameter_tensors
from gnomon.plan.flops import model_flops
from gnomon.plan.operators import Cases, training_operators
from gnomon.plan.parameters import count_parameters
from gnomon.plan.planner import plan
from gnomon.plan.render import operator_table
from gnomon.plan.sizing import fit_model, gpt_ladder
from gnomon.spec import AcceleratorSpec, CollectiveCurve, Layout, ModelSpec, MoESpec, SizeCurve, Workload
from plan_fixtures import ATTENTION_RATE, MATMUL_RATE, MEMORY_RATE, TINY, constant_cluster


def test_model_flops_of_gpt2_by_hand():
    gpt2 = ModelSpec(num_layers=12, hidden_size=768, num_heads=12, vocab_size=50257, max_seq_len=1024)
    tokens = 1024
    matmul = 2 * tokens * (12 * 12 * 768 * 768 + 50257 * 768)
    causal = 12 * 4 * 1024 * 1024 * 768 // 2
    workload = Workload(seq_len=1024, global_batch=1)
    assert model_flops(gpt2, workload) == 3 * (matmul + causal)
    assert model_flops(gpt2, workload.model_copy(update={"attention_mask": "full"})) == 3 * (matmul + 2 * causal)


def test_matmul_time_is_flops_over_rate():
    estimate = plan(TINY, constant_cluster(memory_rate=1e18), Layout(), Workload(seq_len=64, global_batch=4))
    per_layer = 2 * 256 * 12 * 64 * 64
    assert estimate.time.matmul_s == pytest.approx(3 * 2 * per_layer / MATMUL_RATE, rel=1e-12)
    attention = 4 * 4 * 64 * 64 * 64 / 2
    assert estimate.time.attention_s == pytest.approx(2 * (1 + 2.5) * attention / ATTENTION_RATE, rel=1e-12)
    assert estimate.step_time_s == pytest.approx(sum(estimate.time.as_dict().values()))


def test_optimizer_time_is_forty_bytes_per_parameter():
    estimate = plan(TINY, constant_cluster(), Layout(), Workload(seq_len=64, global_batch=4))
    parameters = count_parameters(TINY).total
    assert estimate.time.optimizer_s == pytest.approx(40 * parameters / MEMORY_RATE)
    unclipped = Workload(seq_len=64, global_batch=4, gradient_clipping=False)
    assert plan(TINY, constant_cluster(), Layout(), unclipped).time.optimizer_s == pytest.approx(
        28 * parameters / MEMORY_RATE
    )


def test_mfu_is_model_flops_over_peak_and_unknown_without_a_peak():
    workload = Workload(seq_len=64, global_batch=4)
    estimate = plan(TINY, constant_cluster(), Layout(), workload)
    assert estimate.mfu == pytest.approx(model_flops(TINY, workload) / estimate.step_time_s / 2e12)
    bare = constant_cluster(accelerator=AcceleratorSpec(name="bare"))
    estimate = plan(TINY, bare, Layout(), workload)
    assert estimate.mfu is None
    assert estimate.fits is None


def test_launches_show_on_a_synchronous_device_and_hide_on_an_asynchronous_one():
    workload = Workload(seq_len=64, global_batch=4)
    launches = sum(
        float(o.calls[0]) * o.launches
        for o in training_operators(Cases.build(TINY, count_parameters(TINY).total, seq_len=64, micro_batch=4))
        if o.phase == "forward"
    )
    synchronous = plan(TINY, constant_cluster(dispatch_s=1e-6), Layout(), workload)
    assert synchronous.time.idle_s == pytest.approx(launches * 1e-6)
    assert plan(TINY, constant_cluster(dispatch_s=1e-12, asynchronous=True), Layout(), workload).time.idle_s == 0.0
    bound = plan(TINY, constant_cluster(dispatch_s=1.0, asynchronous=True), Layout(), workload)
    assert bound.step_time_s == pytest.approx(launches * 1.0)


def test_arrays_give_the_same_as_scalars():
    cluster = constant_cluster(dispatch_s=1e-6)
    parameters = count_parameters(TINY).total
    batch, length, dp = np.array([1, 2, 4]), np.array([16, 32, 64]), np.array([1, 2, 8])
    whole = evaluate(Cases.build(TINY, parameters, seq_len=length, micro_batch=batch, dp=dp), cluster)
    for index in range(3):
        one = evaluate(
            Cases.build(TINY, parameters, seq_len=length[index], micro_batch=batch[index], dp=dp[index]), cluster
        )
        assert one.step_time_s[0] == whole.step_time_s[index]
        assert one.peak_memory_bytes[0] == whole.peak_memory_bytes[index]


def test_ring_all_reduce_known_value():
    # 8 ranks, 1 GB over 100 GB/s, 10 us: 2 * 7/8 * 10 ms + 14 * 10 us
    assert float(ring_all_reduce_s(1e9, 8, 1e11, 1e-5)) == pytest.approx(0.0175 + 0.00014)
    assert float(ring_all_reduce_s(1e9, 1, 1e11, 1e-5)) == 0.0


def test_gradients_are_reduced_in_buckets():
    assert gradient_buckets(100.0) == [100.0]
    assert gradient_buckets(60 * 2**20) == [2**20, 25 * 2**20, 25 * 2**20, 9 * 2**20]
    assert sum(gradient_buckets(123456789.0)) == 123456789.0


def test_the_last_bucket_is_never_hidden():
    assert float(exposed_s([1.0, 2.0], 100.0, overlap=1.0)) == 2.0
    assert float(exposed_s([1.0, 2.0], 100.0, overlap=0.0)) == 3.0
    assert float(exposed_s([10.0, 2.0], 4.0, overlap=1.0)) == 8.0
    assert float(exposed_s([], 4.0, overlap=1.0)) == 0.0


def test_communication_of_two_ranks_over_a_measured_collective():
    curve = CollectiveCurve(ranks=2, latency_s=1e-3, bandwidth=SizeCurve.constant(1e9))
    cluster = constant_cluster(collectives={"all_reduce": curve})
    estimate = plan(TINY, cluster, Layout(dp=2), Workload(seq_len=64, global_batch=4, micro_batch=2))
    size = 4 * count_parameters(TINY).total
    assert size < 2**20  # one bucket, so all of it shows
    assert estimate.time.communication_s == pytest.approx(1e-3 + size / 1e9)


def test_parameter_tensors_match_a_real_model():
    from gnomon.train.gpt import GPT

    llama = {"norm": "rmsnorm", "position": "rope", "gated_mlp": True, "activation": "silu", "qk_norm": True}
    for extra in ({}, {"norm_bias": True, "attention_bias": True, "mlp_bias": True}, llama, {"tied_embeddings": False}):
        spec = ModelSpec.from_mapping({**TINY.to_mapping(), **extra})
        assert num_parameter_tensors(spec) == len(list(GPT(spec).parameters()))


def test_memory_of_weights_gradients_and_optimizer_is_exact():
    memory = plan(TINY, constant_cluster(), Layout(), Workload(seq_len=64, global_batch=1)).memory
    parameters = count_parameters(TINY).total
    assert (memory.weights_bytes, memory.gradients_bytes, memory.optimizer_bytes) == (
        4 * parameters,
        4 * parameters,
        8 * parameters,
    )


def test_peak_is_the_end_of_backward_when_activations_are_few():
    wide = TINY.model_copy(update={"num_layers": 1, "ffn_hidden_size": 65536})
    memory = plan(wide, constant_cluster(), Layout(), Workload(seq_len=1, global_batch=1)).memory
    assert memory.activations_bytes == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": Layout(tp=2)}, "layout.tp=2 is not priced yet"),
        ({"layout": Layout(zero_stage=3)}, "layout.zero_stage=3 is not priced yet"),
        ({"layout": Layout(dp=16), "workload": Workload(seq_len=8, global_batch=16, micro_batch=1)}, "has 8 accel"),
        ({"layout": Layout(dp=8)}, "Set global_batch to 32"),
        ({"cluster": constant_cluster(tiers=()), "layout": Layout(dp=2)}, "needs a network"),
        ({"cluster": constant_cluster(efficiency=None)}, "gnomon calibrate"),
        ({"workload": Workload(seq_len=129, global_batch=4)}, "exceeds the 128 learned positions"),
    ],
)
def test_refusals_say_what_to_do(change, message):
    workload = Workload(seq_len=8, global_batch=8, micro_batch=4)
    asked = {"model": TINY, "cluster": constant_cluster(), "layout": Layout(), "workload": workload, **change}
    with pytest.raises((LayoutError, PlanError), match=message):
        plan(**asked)


def test_mixture_of_experts_is_refused_by_name():
    moe = TINY.model_copy(update={"moe": MoESpec(num_experts=4, experts_per_token=2, expert_ffn_size=64)})
    with pytest.raises(PlanError, match="mixture-of-experts"):
        plan(moe, constant_cluster(), Layout(), Workload(seq_len=8, global_batch=4))


def test_sizing_takes_the_largest_model_within_the_budget():
    cluster, workload = constant_cluster(), Workload(seq_len=64, global_batch=4)
    ladder = [plan(m, cluster, Layout(), workload).step_time_s for m in gpt_ladder(64)]
    assert ladder == sorted(ladder)
    budget = 100 * ladder[5] * 1.0001
    model, estimate = fit_model(cluster, Layout(), workload, num_steps=100, budget_s=budget)
    assert model == gpt_ladder(64)[5]
    assert estimate.step_time_s == ladder[5]
    smallest, estimate = fit_model(cluster, Layout(), workload, num_steps=100, budget_s=100 * ladder[0] / 2)
    assert smallest == gpt_ladder(64)[0]
    assert estimate.step_time_s * 100 > 100 * ladder[0] / 2  # longer than asked, and the estimate says so
    small = constant_cluster(accelerator=AcceleratorSpec(name="small", memory_bytes=1e6))
    with pytest.raises(PlanError, match="Not even gpt-2x128 fits"):
        fit_model(small, Layout(), workload, num_steps=100, budget_s=1e9)


def test_cases_are_frozen():
    cases = Cases.build(TINY, 1, seq_len=8, micro_batch=1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cases.precision = "bf16"


def test_a_measured_collective_speaks_only_for_its_own_number_of_ranks():
    curve = CollectiveCurve(ranks=2, latency_s=1.0, bandwidth=SizeCurve.constant(1e9))
    estimate = plan(
        TINY,
        constant_cluster(collectives={"all_reduce": curve}),
        Layout(dp=4),
        Workload(seq_len=64, global_batch=8, micro_batch=2),
    )
    assert estimate.time.communication_s < 1.0
    assert estimate.sources["communication_s"] == "ring over link"


def test_a_window_shorter_than_the_sequence_is_refused():
    windowed = TINY.model_copy(update={"sliding_window": 32, "num_sliding_window_layers": 2})
    plan(windowed, constant_cluster(), Layout(), Workload(seq_len=32, global_batch=4))
    with pytest.raises(PlanError, match="Set seq_len <= 32"):
        plan(windowed, constant_cluster(), Layout(), Workload(seq_len=33, global_batch=4))


def test_the_slowest_operators_are_shown_in_order():
    estimate = plan(TINY, constant_cluster(), Layout(), Workload(seq_len=64, global_batch=4))
    table = operator_table(estimate, 3)
    assert table.row_count == 3
    slowest = max(estimate.operators, key=lambda operator: operator.time_s + operator.launch_s)
    assert next(iter(table.columns[0].cells)) == slowest.name
