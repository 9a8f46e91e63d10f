"""Figures worked out by hand for layouts that average layers, shortened tiers or rounded stages would get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import LayoutError, PlanError, SpecError
from gnomon.plan.cases import Cases
from gnomon.plan.communication import gradient_reduction_s, shard_traffic
from gnomon.plan.evaluate import evaluate
from gnomon.plan.memory import cast_weights_bytes, layer_activations_bytes, layer_bytes
from gnomon.plan.network import all_gather_s, group
from gnomon.plan.operators import micro_batch_operators
from gnomon.plan.own_loop import check_own_loop
from gnomon.plan.parameters import count_parameters
from gnomon.plan.planner import plan
from gnomon.plan.rates import rates_of
from gnomon.plan.stages import held_parameters, stage_parameters, updated_parameters
from gnomon.spec import ClusterSpec, Layout, ModelSpec, NetworkTier, Workload
from gnomon.spec.catalog import load_cluster, load_model, load_stack

H100 = load_cluster("dgx-h100", num_nodes=64)
CORE = {"precision": "bf16", "stack": "megatron-core"}


def stage(estimate, name):
    return next(s for s in estimate.stages if s.name == name)


def row(estimate, name):
    return next((o for o in estimate.operators if o.name == name), None)


@pytest.mark.parametrize("modules", [1, 3])
def test_each_prediction_module_takes_the_time_of_a_layer_and_of_a_head(modules):
    """A module is a layer, a projection of two hidden states, and the head again (arXiv 2412.19437, section 2.2)."""
    asked = Workload(seq_len=4096, global_batch=512, micro_batch=1, **CORE)
    layout = Layout(dp=64, ep=64)
    model = load_model("deepseek-v3").model_copy(update={"num_layers": 4})
    without, with_ = (plan(model.model_copy(update={"num_mtp_layers": n}), H100, layout, asked) for n in (0, modules))
    assert row(with_, "expert up").calls == pytest.approx(row(without, "expert up").calls * (4 + modules) / 4)
    assert row(with_, "head").calls == pytest.approx(row(without, "head").calls * (1 + modules))
    projection = row(with_, "prediction module")
    assert projection.flops == pytest.approx(8 * modules * 2 * 4096 * 7168 * 2 * 7168)
    assert with_.time.communication_s > without.time.communication_s * (4 + modules) / 4 * 0.9
    assert with_.mfu == pytest.approx(without.mfu, rel=0.1)


def test_in_dualpipe_a_rank_does_half_its_work_in_the_stage_that_mirrors_its_own():
    """The stage with head and prediction module is paired with the first: a rank has half of (3 + 2 + 1) layers."""
    asked = Workload(seq_len=4096, global_batch=512, micro_batch=1, **CORE)
    estimate = plan(load_model("deepseek-v3"), H100, Layout(dp=8, pp=16, ep=8, schedule="dualpipe"), asked)
    assert row(estimate, "query up").calls == pytest.approx(64 * 3)
    assert row(estimate, "head").calls == pytest.approx(64 * 2 / 2)
    outside = estimate.time.optimizer_s + estimate.time.idle_s + estimate.time.communication_s
    assert estimate.step_time_s <= (estimate.pipeline.total_s + outside) * (1 + 1e-9)


@pytest.mark.parametrize(("name", "pp"), [("qwen2.5-3b", 8), ("gemma-2b", 8), ("llama-2-7b", 4)])
@pytest.mark.parametrize("schedule", ["zb-v", "v-half", "v-min"])
def test_a_folded_pipeline_gives_the_first_rank_both_ends(name, pp, schedule):
    asked = Workload(seq_len=2048, global_batch=64, micro_batch=1, **CORE)
    estimate = plan(load_model(name), H100, Layout(pp=pp, schedule=schedule), asked)
    outside = estimate.time.optimizer_s + estimate.time.idle_s + estimate.time.communication_s
    assert estimate.step_time_s <= (estimate.pipeline.total_s + outside) * (1 + 1e-9)
    assert estimate.time.bubble_s > 0


def test_ranks_that_share_experts_gather_what_they_were_sent():
    """Mixtral: 8.39 MB per rank and all-to-all whatever expert_tp is; with ep=1 each token is gathered once."""
    model, asked = load_model("mixtral-8x7b"), Workload(seq_len=4096, global_batch=128, micro_batch=1, **CORE)
    tokens, wide = 4096 / 8, 4096 * 2
    calls = 4 * 32 * 16
    spread = row(plan(model, H100, Layout(dp=8, tp=8, ep=8), asked), "expert all-to-all")
    both = row(plan(model, H100, Layout(dp=8, tp=8, ep=8, expert_tp=8), asked), "expert all-to-all")
    shared = row(plan(model, H100, Layout(dp=8, tp=8, ep=1, expert_tp=8), asked), "expert all-to-all")
    assert spread.traffic_bytes == pytest.approx(calls * tokens * 2 * wide)
    met = 8 * (1 - (7 / 8) ** 2) / 2  # of the two experts' tokens on a rank those that differ
    assert both.traffic_bytes == pytest.approx(calls * (tokens * 2 * wide + tokens * 8 * 2 * met * wide))
    assert shared.traffic_bytes == pytest.approx(calls * tokens * 8 * wide)
    assert shared.time_s > 0
    assert shared.time_s < both.time_s


def test_a_fourth_tier_is_crossed_and_a_fifth_refused():
    h100 = load_cluster("dgx-h100")

    def cluster(wan_bytes_per_s, more=()):
        spans = ((8, 450e9), (128, 50e9), (256, 50e9), (512, wan_bytes_per_s), *more)
        tiers = [
            NetworkTier(name=f"tier {span}", span=span, bandwidth_bytes_per_s=rate, latency_s=1e-6, source="made up")
            for span, rate in spans
        ]
        return ClusterSpec.from_mapping(
            {**h100.to_mapping(), "num_nodes": 64, "tiers": [t.to_mapping() for t in tiers]}
        )

    model, asked = load_model("llama-2-7b"), Workload(seq_len=4096, global_batch=512, micro_batch=1, **CORE)
    fast, slow = (plan(model, cluster(rate), Layout(dp=512), asked) for rate in (50e9, 0.1e9))
    assert slow.step_time_s > fast.step_time_s + 1.0
    with pytest.raises(SpecError, match="at most 4"):
        cluster(1e9, more=((1024, 1e9),))


@pytest.mark.parametrize(("pp", "vpp", "first", "middle"), [(16, 8, 7, 8), (16, 4, 7, 8), (8, 4, 15, 16)])
def test_llama_3_405b_has_a_layer_less_on_the_first_and_the_last_stage(pp, vpp, first, middle):
    """126 layers, interleaved (Llama 3, arXiv 2407.21783, section 3.3.2)."""
    cluster = load_cluster("dgx-h100", num_nodes=32)
    asked = Workload(seq_len=8192, global_batch=64, micro_batch=1, **CORE)
    estimate = plan(load_model("llama-3.1-405b"), cluster, Layout(tp=8, pp=pp, vpp=vpp), asked)
    assert stage(estimate, "first").num_layers == first
    assert stage(estimate, "middle").num_layers == middle
    assert stage(estimate, "last").num_layers == first


def test_layers_are_never_split_between_stages():
    """80 layers on 32 stages: some have 3, and these set the pace."""
    cluster = load_cluster("dgx-h100", num_nodes=32)
    asked = Workload(seq_len=4096, global_batch=256, micro_batch=1, **CORE)
    some = plan(load_model("llama-2-70b"), cluster, Layout(tp=8, pp=32), asked)
    model = load_model("llama-2-70b").model_copy(update={"num_layers": 96})
    all_ = plan(model, cluster, Layout(tp=8, pp=32), asked)
    assert {s.name: s.num_layers for s in some.stages} == {"first": 2, "middle": 3, "last": 2}
    assert 0.9 < some.step_time_s / all_.step_time_s < 1.0  # its last stage has the head and a layer less
    assert any("the largest are priced" in line for line in some.assumptions)


def test_the_first_stage_has_the_leading_dense_layers():
    """DeepSeek-V3: latent attention 187.1 M, dense feed-forward 396.4 M, embedding 926.7 M."""
    cluster = load_cluster("dgx-h100", num_nodes=128)
    asked = Workload(seq_len=4096, global_batch=1024, micro_batch=1, **CORE)
    estimate = plan(load_model("deepseek-v3"), cluster, Layout(dp=64, pp=16, ep=64), asked)
    first, middle = stage(estimate, "first"), stage(estimate, "middle")
    assert (first.num_layers, middle.num_layers) == (3, 4)
    attention = 7168 * 1536 + 1536 * 128 * 192 + 7168 * 576 + 512 * 128 * 256 + 128 * 128 * 7168
    attention += 1536 + 512 + 2 * 7168
    dense, expert = 3 * 7168 * 18432, 3 * 7168 * 2048
    assert first.num_parameters == pytest.approx(3 * (attention + dense) + 129280 * 7168, rel=1e-4)
    sparse = attention + expert + 256 * 7168 + 256 / 64 * expert
    assert middle.num_parameters == pytest.approx(4 * sparse, rel=1e-4)


@pytest.mark.parametrize(
    "layout", [{"pp": 10}, {"pp": 4}, {"pp": 2}, {"pp": 4, "vpp": 3}, {"pp": 4, "schedule": "zb-v"}]
)
@pytest.mark.parametrize("name", ["deepseek-v2", "llama-4-maverick"])
def test_the_stages_hold_the_whole_model(name, layout):
    model, asked = load_model(name), Workload(seq_len=4096, global_batch=256, micro_batch=1, **CORE)
    estimate = plan(model, H100, Layout(dp=8, ep=8, **layout), asked)
    counts = {s.name: s for s in estimate.stages}
    middle = counts["middle"].num_parameters * (layout["pp"] - 2) if layout["pp"] > 2 else 0.0
    held = counts["first"].num_parameters + middle + counts["last"].num_parameters
    routed = count_parameters(model).experts
    assert held == pytest.approx(estimate.num_parameters - routed * 7 / 8, rel=1e-6)


def test_layers_with_and_without_experts_that_alternate_lie_evenly():
    """Llama 4 Maverick: every other layer has 128 experts."""
    model = load_model("llama-4-maverick")
    assert [model.is_dense(layer) for layer in range(4)] == [True, False, True, False]
    asked = Workload(seq_len=4096, global_batch=256, micro_batch=1, **CORE)
    estimate = plan(model, H100, Layout(dp=32, pp=2, ep=32), asked)
    first, last = (s.num_parameters for s in estimate.stages)
    assert first == pytest.approx(last, rel=1e-5)


@pytest.mark.parametrize("vpp", [2, 3, 4, 5, 8])
def test_chunks_that_do_not_divide_hold_no_more_than_the_model(vpp):
    """80 layers on 8 ranks are 10 each, however many chunks they come in."""
    cluster = load_cluster("dgx-h100", num_nodes=8)
    asked = Workload(seq_len=4096, global_batch=64, micro_batch=1, **CORE)
    estimate = plan(load_model("llama-2-70b"), cluster, Layout(tp=8, pp=8, vpp=vpp), asked)
    assert [s.num_layers for s in estimate.stages] == [10, 10, 10]
    uneven = any("chunks do not divide 80 layers" in line for line in estimate.assumptions)
    assert uneven == (vpp in (3, 4, 8))
    with pytest.raises(LayoutError, match="are for one chunk per rank"):
        plan(load_model("llama-2-70b"), cluster, Layout(tp=8, pp=8, vpp=vpp, first_stage_layers=3), asked)


def test_what_a_step_does_to_the_weights_is_that_of_the_stage_with_the_most():
    """Llama 3.1 405B: 8 layers on a middle rank, 7 and the embedding or the head on those at the ends."""
    model, layout = load_model("llama-3.1-405b"), Layout(tp=8, pp=16, vpp=8)
    asked = Workload(seq_len=8192, global_batch=64, micro_batch=1, **CORE)
    cases = Cases.of(model, H100, layout, asked, load_stack("megatron-core"))
    estimate = plan(model, H100, layout, asked)
    most = max(s.num_parameters for s in estimate.stages)
    assert most == stage(estimate, "middle").num_parameters
    assert float(updated_parameters(cases)[0]) == pytest.approx(most)
    assert float(held_parameters(cases)[0]) == pytest.approx(most)


@pytest.mark.parametrize("schedule", ["1f1b", "dualpipe"])
@pytest.mark.parametrize("name", ["kimi-k2", "deepseek-v3", "llama-4-maverick"])
def test_two_stages_have_none_between_them(name, schedule):
    asked = Workload(seq_len=4096, global_batch=512, micro_batch=1, **CORE)
    model, layout = load_model(name), Layout(dp=64, pp=2, ep=64, schedule=schedule)
    estimate = plan(model, H100, layout, asked)
    found = evaluate(Cases.of(model, H100, layout, asked, load_stack(asked.stack)))
    assert float(found.peak_memory_bytes[0]) == pytest.approx(estimate.memory.total_bytes)
    assert int(found.busiest[0]) != 1


def test_sharded_weights_are_gathered_once_with_their_prediction_modules():
    model = load_model("deepseek-v3").model_copy(update={"num_layers": 4, "num_mtp_layers": 3})
    asked = Workload(seq_len=4096, global_batch=64, micro_batch=1, precision="bf16", stack="fsdp")
    cases = Cases.of(model, H100, Layout(dp=64, ep=64, zero_stage=3), asked, load_stack("fsdp"))
    shared, _ = stage_parameters(cases, "first")
    gather, _ = shard_traffic(cases)
    path = group(cases.network, cases.split.dp, np.ones(1))
    once = all_gather_s(shared * 2.0, path) + 6 * path.steps_s  # seven layers, each with the latencies of its own
    assert float((gather * 7)[0]) == pytest.approx(float(once[0]), rel=1e-6)


def test_of_a_prediction_module_one_micro_batch_is_alive():
    asked = Workload(seq_len=4096, global_batch=4096, micro_batch=1, **CORE)
    layout, cluster = Layout(dp=64, pp=16, ep=64, schedule="dualpipe", zero_stage=1), load_cluster("dgx-h100", 128)
    model = load_model("deepseek-v3")
    with_, without = (plan(model.model_copy(update={"num_mtp_layers": n}), cluster, layout, asked) for n in (1, 0))
    kept = sum(with_.activation_tensors.values())
    more = stage(with_, "first").memory.activations_bytes - stage(without, "first").memory.activations_bytes
    assert more < 3 * kept + 4096 * 129280 * 8 + 4096 * 7168 * 16


def test_what_is_computed_again_is_the_larger_of_the_two_kinds_of_layer():
    """T5-11B: an encoder layer over 1,024 tokens keeps more than one of the decoder over 128."""
    shared = {"global_batch": 128, "micro_batch": 16, "precision": "bf16", "stack": "fsdp"}
    alone = {"hidden_size": 1024, "num_heads": 128, "head_dim": 128, "ffn_hidden_size": 65536, "vocab_size": 32128}
    layout = Layout(dp=8, zero_stage=3, recompute="full")
    both = plan(load_model("t5-11b"), H100, layout, Workload(seq_len=128, encoder_seq_len=1024, **shared))
    same = ModelSpec(num_layers=24, norm="rmsnorm", position="none", activation="relu", **alone)
    single = Workload(seq_len=1024, attention_mask="full", **shared)
    encoder = plan(same, H100, layout.model_copy(update={"recompute": "none"}), single)
    assert both.memory.activations_bytes > sum(encoder.activation_tensors.values())


def test_copies_of_experts_are_those_that_a_rank_holds():
    asked = Workload(seq_len=2048, global_batch=8, micro_batch=1, precision="bf16", stack="gnomon")
    cases = Cases.of(load_model("mixtral-8x7b"), H100, Layout(dp=8, ep=8), asked, load_stack("gnomon"))
    held = float(sum(stage_parameters(cases, "first"))[0])
    assert float(cast_weights_bytes(cases, "first")[0]) == pytest.approx(2 * held, rel=0.03)


@pytest.mark.parametrize("recompute", ["selective", "full"])
def test_attention_that_is_computed_again_exchanges_keys_again(recompute):
    asked = Workload(seq_len=32768, global_batch=4, micro_batch=1, **CORE)
    kept, again = (
        plan(load_model("llama-3.1-8b"), H100, Layout(tp=8, cp=8, recompute=r), asked) for r in ("none", recompute)
    )
    exposed = [row(e, "context-parallel exchange").exposed_s for e in (kept, again)]
    assert exposed[1] > exposed[0]


def test_a_window_alone_is_that_of_all_layers():
    base = load_model("mistral-7b").to_mapping()
    alone = {k: v for k, v in base.items() if k != "num_sliding_window_layers"}
    assert ModelSpec.from_mapping(alone).num_sliding_window_layers == 32
    with pytest.raises(SpecError, match="set both or neither"):
        ModelSpec.from_mapping({**base, "sliding_window": None, "num_sliding_window_layers": 4})


def test_megatron_pads_the_vocabulary_and_others_do_not():
    asked = {"seq_len": 1024, "global_batch": 8, "micro_batch": 8, "precision": "bf16"}
    core = plan(load_model("gpt2"), H100, Layout(tp=4), Workload(**asked, stack="megatron-core"))
    eager = plan(load_model("gpt2"), H100, Layout(tp=4), Workload(**asked, stack="fsdp"))
    assert row(core, "head").flops == pytest.approx(2 * 8 * 1024 * 768 * 12672)  # ceil(50257 / 512) x 128
    assert row(eager, "head").flops == pytest.approx(2 * 8 * 1024 * 768 * 50257 / 4)
    assert core.model_flops == eager.model_flops


def test_the_loss_of_old_megatron_is_made_of_kernels():
    """To fp32, maximum, difference, exponential, sum and quotient of the logits; and back (mpu/cross_entropy.py)."""
    asked = {"seq_len": 1024, "global_batch": 8, "micro_batch": 8, "precision": "fp16"}
    old = plan(load_model("gpt2"), H100, Layout(tp=4), Workload(**asked, stack="megatron"))
    new = plan(load_model("gpt2"), H100, Layout(tp=4), Workload(**asked, stack="megatron-core"))
    moved = [sum(o.traffic_bytes for o in e.operators if o.name == "loss") for e in (old, new)]
    logits = 8 * 1024 * 12672
    assert moved[0] == pytest.approx(52 * logits)
    assert moved[1] == pytest.approx(16 * logits)


def test_hfu_counts_a_head_that_is_not_computed_again():
    asked = Workload(seq_len=4096, global_batch=8, micro_batch=1, **CORE)
    estimate = plan(load_model("llama-3.2-1b"), H100, Layout(recompute="full"), asked)
    forward = 16 * (2 * (2048 * 3072 + 2048 * 2048 + 3 * 2048 * 8192) + 2 * 2 * 4096 / 2 * 2048)
    padded = np.ceil(128256 / 128) * 128
    assert estimate.hfu / estimate.mfu == pytest.approx(1 + forward / 3 / (forward + 2 * padded * 2048), rel=1e-6)


def test_latent_attention_keeps_values_as_wide_as_they_are():
    asked = {"seq_len": 4096, "global_batch": 512, "micro_batch": 1, "precision": "bf16"}
    layout = Layout(dp=64, ep=64)
    core = plan(load_model("deepseek-v3"), H100, layout, Workload(**asked, stack="megatron-core"))
    assert core.activation_tensors["values"] == 4096 * 128 * 128 * 2
    assert core.activation_tensors["keys"] == 4096 * 128 * 192 * 2


def test_a_stack_from_a_file_says_what_differs(tmp_path):
    path = tmp_path / "half-moments.yaml"
    path.write_text("base: megatron-core\nmoment_bytes: 2\ngradient_bytes: 2\noverlap_data: 0.0\n")
    stack = load_stack(str(path))
    assert stack.name == "half-moments"
    assert stack.dispatch_s == load_stack("megatron-core").dispatch_s
    asked = {"seq_len": 4096, "global_batch": 8, "micro_batch": 1, "precision": "bf16"}
    plain, half = (
        plan(load_model("llama-2-7b"), H100, Layout(dp=8), Workload(**asked, stack=s))
        for s in ("megatron-core", str(path))
    )
    assert half.memory.optimizer_bytes == pytest.approx(plain.memory.optimizer_bytes * 8 / 12)
    assert half.memory.gradients_bytes == pytest.approx(plain.memory.gradients_bytes / 2)
    assert "moments in 16 bits each" in half.assumptions[0]
    path.write_text("base: fsdp\nlayers_of: megatron\n")
    assert load_stack(str(path)).dispatch_s == load_stack("megatron").dispatch_s
    path.write_text("base: megatron-core\nmoment_byts: 2\n")
    with pytest.raises(SpecError, match="Did you mean 'moment_bytes'"):
        load_stack(str(path))


def test_the_nearest_degrees_of_ulysses_are_those_of_the_product():
    asked = Workload(seq_len=4096, global_batch=1, micro_batch=1, **CORE)
    layout = Layout(tp=8, cp=3, context_parallel="all_to_all")
    with pytest.raises(LayoutError, match=r"nearest values that divide: tp x cp=16 or tp x cp=32"):
        plan(load_model("llama-2-7b"), load_cluster("dgx-h100", num_nodes=3), layout, asked)


@pytest.mark.parametrize("schedule", ["1f1b", "zb-h1", "zb-v", "v-half", "v-min"])
def test_longer_sequences_take_longer_where_shards_hide_behind_both_backward_passes(schedule):
    """Twice the tokens compute twice as long; what is hidden meanwhile may not count for one of the passes alone."""
    layout = Layout(dp=8, tp=2, pp=8, cp=2, zero_stage=3, schedule=schedule)
    short, long = (
        plan(
            load_model("llama-65b"), H100, layout, Workload(seq_len=length, global_batch=256, micro_batch=2, **CORE)
        ).step_time_s
        for length in (2048, 4096)
    )
    assert 1.05 * short < long < 2.0 * short


def test_both_ends_of_dualpipe_hold_the_same():
    """Four micro-batches of the first of four stages and one of the last, on the first rank and on the last."""
    asked = Workload(seq_len=4096, global_batch=512, micro_batch=1, **CORE)
    shape = {"dp": 8, "tp": 8, "pp": 4, "schedule": "dualpipe"}
    model = load_model("llama-3.1-70b")
    ends = {"first_stage_layers": 17, "last_stage_layers": 23}
    estimate = plan(model, H100, Layout(**shape, **ends), asked)
    first, middle, last = estimate.stages
    assert (first.num_layers, middle.num_layers, last.num_layers) == (40, 40, 40)
    assert first.num_parameters == last.num_parameters
    assert first.memory.total_bytes == last.memory.total_bytes
    # against equal stages of 20, 4 x 17 + 23 = 91 of the 5 x 20 layers' activations are alive
    equal = plan(model, H100, Layout(**shape), asked).stages[0]
    layer = Cases.of(model, H100, Layout(**shape), asked, load_stack("megatron-core"))
    kept = float(layer_activations_bytes(layer)[0])
    assert equal.memory.activations_bytes - first.memory.activations_bytes == pytest.approx(9 * kept, rel=1e-9)


def test_dropped_tokens_are_no_work_of_the_model():
    model, layout = load_model("mixtral-8x22b"), Layout(dp=8, tp=8, ep=8)
    asked = Workload(seq_len=8192, global_batch=64, micro_batch=1, **CORE)
    all_, half, none = (
        plan(model, H100, layout, asked.model_copy(update={"capacity_factor": room})) for room in (None, 0.5, 1e-9)
    )
    routed = 6 * 2 * 3 * 6144 * 16384 * 56 * 64 * 8192  # 2 of 8 experts with 3 matrices, in 56 layers
    assert all_.model_flops - half.model_flops == pytest.approx(routed / 2, rel=1e-9)
    assert all_.model_flops - none.model_flops == pytest.approx(routed, rel=1e-6)
    assert none.mfu < all_.mfu
    assert any("room for 0.5 times the mean" in line and "50.0%" in line for line in half.assumptions)


def test_an_expert_gets_no_more_than_all_tokens():
    asked = Workload(seq_len=4096, global_batch=64, micro_batch=1, **CORE)
    with pytest.raises(PlanError, match="at most all tokens: 4 times"):
        plan(load_model("mixtral-8x7b"), H100, Layout(dp=8), asked.model_copy(update={"expert_imbalance": 4.1}))
    for field, value in (("expert_imbalance", 2.0), ("capacity_factor", 1.0)):
        with pytest.raises(PlanError, match=f"{field}=.* is for experts, but 'llama-2-7b' has none"):
            plan(load_model("llama-2-7b"), H100, Layout(dp=8), asked.model_copy(update={field: value}))


def test_what_is_computed_again_hides_shards_too():
    """Full recomputation adds the forward to the window of a slow network, and to the time no more than the rest."""
    slow = H100.model_copy(
        update={"tiers": (H100.tiers[0], H100.tiers[1].model_copy(update={"bandwidth_bytes_per_s": 3e9}))}
    )
    asked = Workload(seq_len=4096, global_batch=128, micro_batch=2, precision="bf16", stack="fsdp")
    none, full = (
        plan(load_model("llama-2-7b"), slow, Layout(dp=64, zero_stage=3, recompute=again), asked)
        for again in ("none", "full")
    )
    hidden = none.time.communication_s - full.time.communication_s
    overlap = load_stack("fsdp").overlap_shard
    assert hidden == pytest.approx(overlap * full.time.recompute_s, rel=0.02)  # the slowest rank computes longer


def test_old_megatron_hides_the_reduction_only_without_a_pipeline():
    """PyTorch's DDP wraps its model without a pipeline; with one, its own reduces when all micro-batches are done."""
    asked = Workload(seq_len=2048, global_batch=512, micro_batch=8, precision="fp16", stack="megatron")
    model, stack = load_model("gpt3-6.7b"), load_stack("megatron")
    for pp, hidden in ((1, stack.overlap_data), (2, 0.0)):
        layout = Layout(dp=32, tp=8, pp=pp, recompute="full")
        cases = Cases.of(model, H100, layout, asked, stack)
        (shown,) = evaluate(cases).exposed["gradients"]
        (whole,) = gradient_reduction_s(cases)[0]
        assert shown == pytest.approx((1.0 - hidden) * whole, rel=1e-12)
        said = plan(model, H100, layout, asked).assumptions
        assert f"{hidden:.0%} of the gradient reduction hides behind backward" in said


def test_fsdp_that_shards_between_micro_batches_gathers_for_each():
    """SHARD_GRAD_OP: one gathering and one scattering per micro-batch; ZeRO-2 elsewhere gathers once."""
    slow = H100.model_copy(
        update={"tiers": (H100.tiers[0], H100.tiers[1].model_copy(update={"bandwidth_bytes_per_s": 1e8}))}
    )
    asked = {"seq_len": 2048, "global_batch": 64 * 8, "micro_batch": 1, "precision": "bf16"}
    layout = Layout(dp=64, zero_stage=2)
    fsdp = plan(load_model("llama-2-7b"), slow, layout, Workload(**asked, stack="fsdp"))
    once = load_stack("fsdp").model_copy(update={"gathers_each_pass": False})
    cases = Cases.of(load_model("llama-2-7b"), slow, layout, Workload(**asked, stack="fsdp"), once)
    assert fsdp.time.communication_s == pytest.approx(
        float(evaluate(cases).terms["communication_s"][0]) * (8 + 8) / (8 + 1), rel=0.05
    )


def test_a_slower_clock_slows_attention_too():
    asked = Workload(seq_len=131072, global_batch=1, micro_batch=1, **CORE)
    model, layout = load_model("llama-3-8b"), Layout(tp=8)
    device = H100.accelerator
    slower = H100.model_copy(update={"accelerator": device.model_copy(update={"tdp_w": device.tdp_w / 2})})
    full, half = (plan(model, cluster, layout, asked).time for cluster in (H100, slower))
    assert half.attention_s == pytest.approx(full.attention_s * 2**0.5, rel=1e-3)


def test_an_update_of_fp32_masters_copies_16_bit_gradients():
    """20 bytes per parameter in Megatron-LM with fp16 gradients, where activations need less."""
    asked = Workload(seq_len=128, global_batch=8, micro_batch=1, precision="fp16", stack="megatron")
    layout = Layout(dp=8, sequence_parallel=False, recompute="full")
    estimate = plan(load_model("gpt3-6.7b"), load_cluster("dgx-a100", 1), layout, asked)
    memory = estimate.memory
    tensors = memory.weights_bytes + memory.gradients_bytes + memory.optimizer_bytes + memory.activations_bytes
    assert tensors == pytest.approx(20 * estimate.num_parameters, rel=1e-6)


def test_every_second_product_again_keeps_attention_and_the_other_products():
    """Llama 3 8B per token: 2 (h + h + 1024 + h + 14336 + h) bytes and fp32 statistics of 32 heads."""
    asked = Workload(seq_len=8192, global_batch=8, micro_batch=1, precision="bf16", stack="fsdp")
    model, cluster = load_model("llama-3-8b"), load_cluster("dgx-h100", 1)
    none, per_op, full = (
        plan(model, cluster, Layout(dp=8, zero_stage=3, recompute=mode), asked) for mode in ("none", "per_op", "full")
    )
    cases = Cases.of(model, cluster, Layout(dp=8, recompute="per_op"), asked, load_stack("fsdp"))
    kept = float(layer_bytes(cases).whole(cases)[0])
    assert kept == pytest.approx(8192 * (2 * (4 * 4096 + 1024 + 14336) + 4 * 32))
    assert per_op.time.recompute_s == pytest.approx((full.time.recompute_s - none.time.attention_s / 3.5) / 2, rel=1e-3)
    assert none.memory.activations_bytes > per_op.memory.activations_bytes > full.memory.activations_bytes
    done = [estimate.hfu * estimate.step_time_s for estimate in (none, per_op, full)]
    assert done == sorted(done)
    with pytest.raises(LayoutError, match="recompute=per_op can be planned"):
        check_own_loop(Layout(recompute="per_op"), Workload(seq_len=64, global_batch=8))


@pytest.mark.parametrize(("stack", "left_out"), [("fsdp", True), ("xla", True), ("megatron-core", False)])
def test_recomputation_leaves_out_the_last_product_of_a_layer_where_nothing_needs_it(stack, left_out):
    """Llama 2 7B: the backward pass needs what goes into the down projection, not what comes out of it."""
    asked = Workload(seq_len=4096, global_batch=16, micro_batch=1, precision="bf16", stack=stack)
    model = load_model("llama-2-7b")
    cases = Cases.of(model, H100, Layout(dp=8, recompute="full"), asked, load_stack(stack))
    found = evaluate(cases)
    forward = [p for p in found.operators if (p.operator.phase, p.operator.place) == ("forward", "layer")]
    down = next(float(p.device_s[0]) for p in forward if p.operator.name == "mlp down")
    layer = sum(float(p.device_s[0]) for p in forward)
    again = float(found.terms["recompute_s"][0]) / (2 * model.num_layers)  # of two micro-batches
    assert again == pytest.approx(layer - left_out * down, rel=1e-9)


@pytest.mark.parametrize(
    ("device", "heads"),
    [("tpu-v6e-pod", {64: 0.25, 128: 0.5, 192: 0.75, 256: 1.0}), ("tpu-v5p-pod", {64: 0.5, 128: 1.0, 192: 0.75})],
)
def test_heads_fill_as_much_of_a_matrix_unit_as_they_are_wide(device, heads):
    """Units of 256 by 256 in TPU v6e and of 128 by 128 before it; products of a head are padded to whole ones."""
    rates = rates_of(load_cluster(device), "bf16")
    for width, share in heads.items():
        assert float(rates._head_share(np.full(1, float(width)))[0]) == pytest.approx(share, rel=1e-12)


def test_software_without_kernels_for_hopper_runs_flash_attention_2_there():
    hopper, ampere = load_cluster("dgx-h100"), load_cluster("dgx-a100")
    peak = hopper.accelerator.peak_flops["bf16"]
    own, portable = (float(rates_of(hopper, "bf16", kernel).attention_flops[0]) for kernel in (True, False))
    assert portable == pytest.approx(0.35 * peak, rel=1e-12)  # arXiv 2407.08608
    assert own > 1.3 * portable
    assert float(rates_of(hopper, "fp8", False).attention_flops[0]) == portable  # attention stays in 16 bits
    assert float(rates_of(ampere, "bf16", False).attention_flops[0]) == float(
        rates_of(ampere, "bf16", True).attention_flops[0]
    )
    assert not load_stack("fsdp").own_attention
    assert load_stack("megatron-core").own_attention


def test_the_sum_after_a_product_that_is_left_out_is_left_out_too():
    """Llama 3.1 70B: of the two sums of a dense layer's forward the second is not repeated."""
    asked = Workload(seq_len=8192, global_batch=8, micro_batch=1, precision="bf16", stack="fsdp")
    model, stack = load_model("llama-3.1-70b"), load_stack("fsdp")
    exposed = {}
    for mode in ("none", "full"):
        cases = Cases.of(model, H100, Layout(tp=8, dp=8, zero_stage=3, recompute=mode), asked, stack)
        exposed[mode] = float(evaluate(cases).exposed["tensor"][0])
    # two forward, and with sequence parallelism three in units of them backward; one more is repeated
    assert exposed["full"] / exposed["none"] == pytest.approx(6 / 5, rel=1e-6)


def test_a_share_of_the_products_again_leaves_attention_alone():
    asked = Workload(seq_len=32768, global_batch=8, micro_batch=1, **CORE)
    model, cluster = load_model("llama-3-8b"), load_cluster("dgx-h100", 1)
    none, half, all_, full = (
        plan(model, cluster, Layout(dp=8, zero_stage=1, recompute=mode, recompute_share=share), asked)
        for mode, share in (("none", 1.0), ("products", 0.5), ("products", 1.0), ("full", 1.0))
    )
    attention = none.time.attention_s / 3.5  # of which 2.5 are backward
    assert all_.time.recompute_s == pytest.approx(full.time.recompute_s - attention, rel=1e-3)
    assert half.time.recompute_s == pytest.approx(all_.time.recompute_s / 2, rel=1e-9)
    assert none.memory.activations_bytes > half.memory.activations_bytes > all_.memory.activations_bytes
    # bf16 outputs of 32 heads of 128 and their fp32 statistics stay
    kept = all_.memory.activations_bytes - full.memory.activations_bytes
    assert kept == pytest.approx(32 * 32768 * 32 * (2 * 128 + 4), rel=1e-6)
    assert all_.hfu > half.hfu > none.hfu
    assert full.hfu > none.hfu
    assert "50% of each layer's products are computed again in the backward pass, attention is not" in half.assumptions
    with pytest.raises(LayoutError, match="recompute=products can be planned"):
        check_own_loop(Layout(recompute="products"), Workload(seq_len=64, global_batch=8))


def test_zero_bubble_steps_follow_each_other_where_no_rank_waits_at_the_update():
    """Bubbles of (p - 1) (F + B - 2 W) and (p - 1) (F + B - W), arXiv 2401.10241, table 1; at each update all of it."""
    model = load_model("gpt3-6.7b").model_copy(update={"num_layers": 32, "vocab_size": 1024})
    asked = Workload(seq_len=2048, global_batch=24, micro_batch=1, **CORE)
    one, two = (plan(model, H100, Layout(pp=8, schedule=name), asked) for name in ("zb-h1", "zb-h2"))
    assert two.pipeline.bubble_fraction < 0.05 < one.pipeline.bubble_fraction
    assert two.step_time_s < 0.96 * one.step_time_s
    waiting = load_stack("megatron-core").model_copy(update={"post_validates": False})
    cases = Cases.of(model, H100, Layout(pp=8, schedule="zb-h2"), asked, waiting)
    assert float(evaluate(cases).step_time_s[0]) > 1.03 * two.step_time_s


def test_sharding_within_a_node_does_not_know_the_rate_of_the_network():
    asked = Workload(seq_len=2048, global_batch=32, micro_batch=4, precision="bf16", stack="deepspeed")
    model, node = load_model("llama-3-8b"), load_cluster("dgx-h100", 1)
    reduced, scattered = (plan(model, node, Layout(dp=8, zero_stage=stage), asked).time for stage in (0, 1))
    assert scattered.communication_s == pytest.approx(reduced.communication_s, rel=0.1)  # the same bytes over NVLink


def test_shards_of_fsdp_are_the_fp32_masters():
    """12 bytes per parameter before the backward pass, 16 with its gradients: no second copy in 16 bits."""
    asked = Workload(seq_len=128, global_batch=8, micro_batch=1, precision="bf16", stack="fsdp")
    estimate = plan(load_model("llama-2-7b"), load_cluster("dgx-h100", 1), Layout(dp=8, zero_stage=3), asked)
    share = estimate.num_parameters / 8
    memory = estimate.memory
    assert (memory.weights_bytes, memory.gradients_bytes, memory.optimizer_bytes) == pytest.approx(
        (4 * share, 4 * share, 8 * share)
    )


def test_kernels_of_one_grouped_product_are_launched_together():
    """256 experts on a rank cost 0.4 of an operator's launch each, not a whole one."""
    asked = Workload(seq_len=4096, global_batch=8, micro_batch=1, **CORE)
    model = load_model("deepseek-v3").model_copy(update={"num_layers": 4, "num_mtp_layers": 0})
    cases = Cases.of(model, load_cluster("dgx-h100", 1), Layout(tp=8, expert_tp=8), asked, load_stack("megatron-core"))
    product = next(o for o in micro_batch_operators(cases) if o.name == "expert up")
    assert float(np.ravel(product.launches)[0]) == pytest.approx(1 + 0.4 * 255)
