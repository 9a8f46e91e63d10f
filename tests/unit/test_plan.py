"""The planner against numbers that can be checked by hand."""

import dataclasses

import numpy as np
import pytest

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.arrays import array, stack
from gnomon.plan.cases import Cases
from gnomon.plan.communication import exposed_s, gradient_buckets
from gnomon.plan.evaluate import evaluate
from gnomon.plan.explain import assumptions
from gnomon.plan.flops import model_flops
from gnomon.plan.network import Group, all_reduce_s
from gnomon.plan.operators import training_operators
from gnomon.plan.parameters import count_parameters
from gnomon.plan.planner import plan
from gnomon.plan.render import operator_table
from gnomon.plan.sizes import num_parameter_tensors
from gnomon.plan.sizing import fit_model, gpt_ladder
from gnomon.spec import AcceleratorSpec, CollectiveCurve, Layout, ModelSpec, MoESpec, SizeCurve, Workload
from gnomon.spec.catalog import load_cluster, load_stack
from plan_fixtures import ATTENTION_RATE, MATMUL_RATE, MEMORY_RATE, TINY, constant_cluster


def cases_of(layout: Layout | None = None, cluster=None, **workload) -> Cases:
    asked = Workload(**{"seq_len": 64, "global_batch": 4, **workload})
    return Cases.of(TINY, cluster or constant_cluster(), layout or Layout(), asked, load_stack("gnomon"))


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
        float(o.calls[0]) * float(np.ravel(o.launches)[0]) * (TINY.num_layers if o.place == "layer" else 1)
        for o in training_operators(cases_of())
        if o.phase == "forward"
    )
    synchronous = plan(TINY, constant_cluster(dispatch_s=1e-6), Layout(), workload)
    assert synchronous.time.idle_s == pytest.approx(launches * 1e-6)
    assert plan(TINY, constant_cluster(dispatch_s=1e-12, asynchronous=True), Layout(), workload).time.idle_s == 0.0
    bound = plan(TINY, constant_cluster(dispatch_s=1.0, asynchronous=True), Layout(), workload)
    assert bound.step_time_s == pytest.approx(launches * 1.0)


def layer_launches(cases: Cases, phase: str) -> float:
    found = [o for o in training_operators(cases) if o.place == "layer" and o.phase == phase]
    return float(sum(np.ravel(o.calls * o.launches)[0] for o in found))


def test_recomputation_launches_the_forward_of_its_layers_once_more():
    dispatch_s, workload = 1e-3, Workload(seq_len=64, global_batch=4, micro_batch=2)
    cluster = constant_cluster(dispatch_s=dispatch_s)
    once, again, half = (
        plan(TINY, cluster, Layout(recompute=mode, recompute_share=share), workload).time.idle_s
        for mode, share in (("none", 1.0), ("full", 1.0), ("full", 0.5))
    )
    forward = 2 * TINY.num_layers * layer_launches(cases_of(micro_batch=2), "forward") * dispatch_s
    assert forward > 0
    assert again - once == pytest.approx(forward, rel=1e-12)
    assert half - once == pytest.approx(0.5 * forward, rel=1e-12)


def test_a_layer_launches_what_that_of_megatron_lm_does():
    # ParallelTransformerLayer in megatron/model/transformer.py of 2021: 2 norms, the product of queries, keys and
    # values and its bias, scores, softmax, dropout, values, their transposition, output, 2 fused sums of bias, dropout
    # and residual, 2 products with the fused GELU between them
    forward = 2 + 2 + 4 + 1 + 1 + 2 + 3
    # the two gradients of 6 products and the one of all else that is not joined, the scaling of queries and keys, their
    # joining with values, 2 sums into the residual; not counted: the sums of 4 bias gradients
    backward = 12 + 2 + 1 + 1 + 2 + 1 + 2 + 1 + 2
    model = TINY.model_copy(update={"norm": "layernorm", "position": "learned"})
    cases = Cases.of(
        model, constant_cluster(), Layout(), Workload(seq_len=64, global_batch=4, dropout=True), load_stack("megatron")
    )
    assert layer_launches(cases, "forward") == forward
    fused = dataclasses.replace(cases, flash=array(1.0))
    unfused = {o.name for o in training_operators(cases)} - {o.name for o in training_operators(fused)}
    assert {"attention scaling", "qkv gradient"} <= unfused
    assert layer_launches(cases, "backward") == backward


def test_arrays_give_the_same_as_scalars():
    cluster = constant_cluster(dispatch_s=1e-6)
    sizes = [(1, 16, 1), (2, 32, 2), (4, 64, 8)]
    alone = [
        cases_of(Layout(dp=dp), cluster, seq_len=length, global_batch=batch * dp, micro_batch=batch)
        for batch, length, dp in sizes
    ]
    whole = evaluate(stack(alone))
    for index in range(3):
        one = evaluate(alone[index])
        assert one.step_time_s[0] == pytest.approx(whole.step_time_s[index], rel=1e-12)
        assert one.peak_memory_bytes[0] == pytest.approx(whole.peak_memory_bytes[index], rel=1e-12)


def test_ring_all_reduce_known_value():
    # 8 ranks, 1 GB over 100 GB/s, 10 us: 2 * 7/8 * 10 ms + 14 * 10 us
    path = Group(ranks=array([8, 1]), bandwidth=array(1e11), steps_s=array(7e-5), tree_s=array(1.0))
    assert all_reduce_s(array(1e9), path) == pytest.approx([0.0175 + 0.00014, 0.0])


def test_gradients_are_reduced_in_buckets():
    assert gradient_buckets(100.0) == [100.0]
    assert gradient_buckets(60 * 2**20) == [2**20, 25 * 2**20, 25 * 2**20, 9 * 2**20]
    assert sum(gradient_buckets(123456789.0)) == 123456789.0


def test_the_last_bucket_is_never_hidden():
    assert exposed_s(array(3.0), array(2.0), array(100.0), array([1.0, 0.0])).tolist() == [2.0, 3.0]
    assert exposed_s(array(12.0), array(2.0), array(4.0), array(1.0)).tolist() == [8.0]
    assert exposed_s(array(0.0), array(0.0), array(4.0), array(1.0)).tolist() == [0.0]


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
        ({"layout": Layout(tp=4)}, "tp=4 does not divide num_heads=2"),
        ({"layout": Layout(pp=4)}, "model chunks need as many layers"),
        ({"layout": Layout(dp=2, ep=2)}, "has none"),
        ({"layout": Layout(dp=2, cp=3)}, "cp=3 splits seq_len=8"),
        ({"layout": Layout(pp=2, schedule="dualpipe")}, "schedule='dualpipe' cannot run"),
        ({"layout": Layout(offload_optimizer=0.5)}, "bandwidth between"),
        ({"layout": Layout(dp=16), "workload": Workload(seq_len=8, global_batch=16, micro_batch=1)}, "has 8 accel"),
        ({"layout": Layout(dp=8)}, "Set global_batch to 32"),
        ({"cluster": constant_cluster(tiers=()), "layout": Layout(dp=2)}, "need a network"),
        ({"cluster": constant_cluster(efficiency=None)}, "gnomon calibrate"),
        ({"workload": Workload(seq_len=129, global_batch=4)}, "exceeds the 128 learned positions"),
    ],
)
def test_refusals_say_what_to_do(change, message):
    workload = Workload(seq_len=8, global_batch=8, micro_batch=4)
    asked = {"model": TINY, "cluster": constant_cluster(), "layout": Layout(), "workload": workload, **change}
    with pytest.raises((LayoutError, PlanError), match=message):
        plan(**asked)


def test_experts_count_once_for_each_token_that_is_sent_to_them():
    experts = MoESpec(num_experts=4, experts_per_token=2, expert_ffn_size=128)
    moe = TINY.model_copy(update={"moe": experts})
    workload = Workload(seq_len=8, global_batch=4)
    # two experts of half the width do the work of the dense layer; the router and the head are the rest
    router = 3 * 2 * 32 * TINY.num_layers * 64 * 4
    assert model_flops(moe, workload) == pytest.approx(model_flops(TINY, workload) + router)
    spread = plan(moe, constant_cluster(), Layout(dp=4, ep=4), Workload(seq_len=8, global_batch=16, micro_batch=4))
    alone = plan(moe, constant_cluster(), Layout(), workload)
    assert spread.memory.weights_bytes < alone.memory.weights_bytes
    assert {o.name for o in spread.operators} - {o.name for o in alone.operators} == {
        "expert all-to-all",
        "gradient reduction",
    }


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
    cases = cases_of()
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
    assert estimate.sources["communication_s"] == "rings over link"


def test_the_assumptions_say_how_far_launches_hide():
    asked = Workload(seq_len=64, global_batch=4)
    behind, each = "launches hide behind the device's work", "each operator waits for its launch"
    assert behind in plan(TINY, constant_cluster(asynchronous=True), Layout(), asked).assumptions
    assert each in plan(TINY, constant_cluster(), Layout(), asked).assumptions
    partly = f"{behind} in 47% of the step; elsewhere each operator waits for what its launch takes longer"
    for share, words in ((1.0, behind), (0.471, partly)):
        stack = load_stack("megatron-core").model_copy(update={"run_ahead": share})
        assert words in assumptions(TINY, load_cluster("dgx-h100"), Layout(), asked, stack)


def test_a_window_shorter_than_the_sequence_leaves_a_band_of_the_attention():
    windowed = TINY.model_copy(update={"sliding_window": 32, "num_sliding_window_layers": 2})
    whole, banded = (
        plan(model, constant_cluster(), Layout(), Workload(seq_len=128, global_batch=4)).time.attention_s
        for model in (TINY, windowed)
    )
    assert banded / whole == pytest.approx((32 - 32 * 32 / 256) / 64)


def test_the_slowest_operators_are_shown_in_order():
    estimate = plan(TINY, constant_cluster(), Layout(), Workload(seq_len=64, global_batch=4))
    table = operator_table(estimate, 3)
    assert table.row_count == 3
    slowest = max(estimate.operators, key=lambda operator: operator.time_s + operator.launch_s)
    assert next(iter(table.columns[0].cells)) == slowest.name
