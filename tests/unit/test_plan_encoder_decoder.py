"""Encoder-decoders (T5): two halves with sequences of their own, and a second attention between them."""

from __future__ import annotations

import pytest

from gnomon.errors import LayoutError, PlanError, SpecError
from gnomon.plan.inference import InferenceWorkload, plan_inference
from gnomon.plan.own_loop import check_own_model
from gnomon.plan.planner import plan
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model

NODE = load_cluster("dgx-a100", num_nodes=1)
T5 = load_model("t5-11b")


def workload(**changes):
    asked = {"seq_len": 128, "encoder_seq_len": 512, "global_batch": 16, "precision": "bf16", "stack": "megatron-core"}
    return Workload(**{**asked, "micro_batch": 16, **changes})


def operators(estimate, name):
    return [o for o in estimate.operators if o.name == name]


def test_flops_are_those_of_both_halves_and_of_the_attention_between_them():
    estimate = plan(T5, NODE, Layout(tp=8), workload())
    read, written, hidden, heads, ffn, layers = 512, 128, 1024, 128 * 128, 65536, 24
    encoder = layers * (2 * read * (4 * hidden * heads + 2 * hidden * ffn) + 4 * read * read * heads)
    own = 2 * written * (4 * hidden * heads + 2 * hidden * ffn) + 4 * written * written / 2 * heads
    cross = 2 * written * 2 * hidden * heads + 2 * read * 2 * hidden * heads + 4 * written * read * heads
    head = 2 * written * 32128 * hidden
    assert estimate.model_flops == pytest.approx(3 * 16 * (encoder + layers * (own + cross) + head), rel=1e-12)


def test_operators_do_all_the_matrix_products():
    estimate = plan(T5, NODE, Layout(tp=8), workload())
    products = sum(o.flops for o in estimate.operators if o.term == "matmul_s")
    hidden, heads, ffn = 1024, 128 * 128, 65536
    layer = 4 * hidden * heads + 2 * hidden * ffn
    tokens = 16 * (24 * 512 * layer + 24 * 128 * (layer + 2 * hidden * heads) + 24 * 512 * 2 * hidden * heads)
    assert products == pytest.approx(3 * 2 * tokens / 8, rel=1e-9)


def test_a_longer_input_costs_the_encoder_and_the_attention_to_it():
    short, long = (plan(T5, NODE, Layout(tp=8), workload(encoder_seq_len=n)) for n in (512, 1024))
    assert long.step_time_s > 1.5 * short.step_time_s
    assert long.memory.activations_bytes > 1.5 * short.memory.activations_bytes
    for name in ("mlp up", "attention"):
        assert operators(long, name)[0].time_s == operators(short, name)[0].time_s
    for name in ("encoder mlp up", "cross attention", "cross key value"):
        assert operators(long, name)[0].time_s > operators(short, name)[0].time_s


def test_equal_halves_without_the_second_attention_are_a_model_of_twice_the_layers():
    """An encoder is a decoder that attends both ways: with full masks and equal lengths only the cross part differs."""
    base = {"hidden_size": 1024, "num_heads": 16, "vocab_size": 32128, "norm": "rmsnorm", "position": "none"}
    both = ModelSpec(num_layers=6, encoder={"num_layers": 6}, **base)
    plain = ModelSpec(num_layers=12, **base)
    asked = workload(seq_len=512, attention_mask="full")
    halves = plan(both, NODE, Layout(), asked)
    one = plan(plain, NODE, Layout(), asked.model_copy(update={"encoder_seq_len": None}))
    own = sum(o.time_s for o in halves.operators if o.name in ("mlp up", "encoder mlp up") and o.phase == "forward")
    assert own == pytest.approx(operators(one, "mlp up")[0].time_s, rel=1e-12)
    assert halves.num_parameters - one.num_parameters == 6 * (4 * 1024**2 + 1024) + 1024
    assert halves.step_time_s > one.step_time_s


@pytest.mark.parametrize("kernel", ["flash", "unfused"])
def test_sharding_lowers_memory(kernel):
    asked = workload(attention_kernel=kernel, micro_batch=1, global_batch=8, stack="fsdp")
    whole, sharded = (plan(T5, NODE, Layout(dp=8, zero_stage=stage), asked) for stage in (0, 3))
    assert sharded.memory.weights_bytes == pytest.approx(whole.memory.weights_bytes / 8)
    assert sharded.memory.total_bytes < whole.memory.total_bytes / 2


def test_biases_of_distances_cost_time_where_scores_are_stored():
    stored = plan(T5, NODE, Layout(tp=8), workload(attention_kernel="unfused"))
    fused = plan(T5, NODE, Layout(tp=8), workload())
    assert operators(stored, "relative positions")
    assert not operators(fused, "relative positions")
    assert operators(stored, "cross attention scores")
    assert operators(fused, "cross attention")


def test_what_it_needs_and_what_it_lacks_is_said():
    with pytest.raises(PlanError, match="Set encoder_seq_len"):
        plan(T5, NODE, Layout(tp=8), workload(encoder_seq_len=None))
    with pytest.raises(PlanError, match="has no encoder"):
        plan(load_model("gpt2"), NODE, Layout(), workload())
    with pytest.raises(LayoutError, match="Set pp=1 and cp=1"):
        plan(T5, NODE, Layout(pp=2), workload())
    with pytest.raises(PlanError, match="serving is not estimated"):
        plan_inference(T5, NODE, Layout(), InferenceWorkload(prompt_len=128, output_len=8, batch=1))
    with pytest.raises(PlanError, match="an encoder"):
        check_own_model(T5)
    with pytest.raises(SpecError, match="cannot have moe"):
        ModelSpec.from_mapping(
            {**T5.to_mapping(), "moe": {"num_experts": 8, "experts_per_token": 1, "expert_ffn_size": 64}}
        )
