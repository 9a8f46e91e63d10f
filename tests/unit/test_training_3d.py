"""`3dtrn`: figures computed by hand on a machine of round numbers, identities of the sections, every mode."""

import dataclasses
import warnings

import pytest

from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import evaluate
from gnomon.plan.training_3d.problem import build_problem
from gnomon.plan.training_3d.result import Training3D
from gnomon.plan.training_3d.schema import TrainingConfig
from gnomon.plan.training_3d.step import evaluate_step
from training_3d_fixtures import STACK, component, mapping, report

EXAMPLES = ["llama3_70b", "llama3_70b_cross_dc", "gpt_oss_120b"]
# Llama 3 70B: attention and output projection, gated feed-forward, two norms
LLAMA_BLOCK = 8192 * (64 + 16) * 128 + 8192 * 8192 + 3 * 8192 * 28672 + 2 * 8192
LLAMA_EMBEDDING = 128256 * 8192
CROSS = {"cross_dc.interconnect_bandwidth_gbps": 100000, "cross_dc.interconnect_latency_s": 0.005}

MODES = [
    ("llama3_70b", {"performance.activation_checkpointing_type": "none"}),
    ("llama3_70b", {"performance.activation_checkpointing_type": "super-selective"}),
    ("llama3_70b", {"performance.activation_checkpointing_type": "full"}),
    ("llama3_70b", {"parallelism.zero_level": 0}),
    ("llama3_70b", {"parallelism.zero_level": 2}),
    ("llama3_70b", {"parallelism.zero_level": 3}),
    ("llama3_70b", {"parallelism.sp": False}),
    ("llama3_70b", {"parallelism.n_param_buckets": 1}),
    ("llama3_70b", {"parallelism.cp": 2, "parallelism.dp": 32}),
    ("llama3_70b", {"parallelism.vpp": 2}),
    ("llama3_70b", {"parallelism.vpp": 4, "parallelism.pp": 4, "parallelism.dp": 32}),
    ("llama3_70b", {"parallelism.pp": 3}),
    ("llama3_70b", {"parallelism.pp": 1, "parallelism.dp": 128}),
    ("llama3_70b", {"parallelism.tp": 1, "parallelism.dp": 512}),
    ("llama3_70b", {"model.dropout": True}),
    ("llama3_70b", {"model.glu": False}),
    ("llama3_70b", {"model.rotary_embeds": False, "model.tie_embeddings": False}),
    ("llama3_70b", {"parallelism.zero_level": 3, "cross_dc.n_dcs": 2, **CROSS}),
    ("gpt_oss_120b", {"model.moe.moe_frequency": 0.5}),
    ("gpt_oss_120b", {"model.moe.moe_frequency": 0.0}),
    ("gpt_oss_120b", {"model.moe.expert_tp_degree": 2}),
    ("gpt_oss_120b", {"model.moe.capacity_factor": 0.5}),
    ("gpt_oss_120b", {"parallelism.ep": 1}),
    ("gpt_oss_120b", {"parallelism.ep": 128}),
    ("gpt_oss_120b", {"parallelism.zero_level": 0}),
    ("gpt_oss_120b", {"parallelism.vpp": 1}),
    *((name, {}) for name in EXAMPLES),
]


@pytest.mark.parametrize(("name", "changes"), MODES, ids=lambda value: "" if isinstance(value, str) else str(value))
def test_sections_add_up(name, changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = report(name, changes)
    iteration, memory = found.iteration, found.memory
    total = found.final.iteration_time_s
    assert sum(part.seconds for part in iteration.components) == pytest.approx(total, rel=1e-9)
    # the block is what the rest of the iteration leaves: it must be its layers times the block's own parts
    layers = round(component(found, "Transformer Block") / iteration.block_s / found.data.num_micro_batches, 6)
    per_stage = found.architecture.num_layers / found.config["parallelism"]["pp"]
    assert layers in {float(per_stage), float(-(-found.architecture.num_layers // found.config["parallelism"]["pp"]))}
    assert sum(part.seconds for part in iteration.block) == pytest.approx(iteration.block_s, rel=1e-9)
    activations = memory.activations
    assert activations.layers_bytes + activations.rest_bytes == pytest.approx(activations.total_bytes, rel=1e-9)
    assert sum(activations.tensors.values()) == pytest.approx(activations.per_layer_bytes, rel=1e-9)
    parts = memory.states_bytes + activations.total_bytes + memory.buffers_bytes + memory.framework_bytes
    assert parts == pytest.approx(memory.total_bytes, rel=1e-9)
    assert memory.total_bytes == max(memory.stages.values())
    assert memory.fits is (memory.total_bytes <= 40 * 2**30)
    assert 0.0 < found.final.mfu < 1.0
    assert Training3D.from_mapping(found.to_mapping()) == found


def test_parameters_and_states_of_llama():
    found = report("llama3_70b")
    assert found.architecture.parameters == 80 * LLAMA_BLOCK + 8192 + LLAMA_EMBEDDING == 69_503_033_344
    # half of the layers (the final norm is spread over them) and one embedding, over eight tensor ranks
    local = (40 * LLAMA_BLOCK + 8192 / 2 + LLAMA_EMBEDDING) / 8
    states = {state.name: state.bytes for state in found.memory.states}
    assert states == pytest.approx(
        {
            "params": 2 * local,
            "params (opt)": 4 * local / 64,
            "exp_avg": 4 * local / 64,
            "exp_avg_squared": 4 * local / 64,
            "grad_buffer": 4 * local,
        }
    )
    sharded = {state.name: state.bytes for state in report("llama3_70b", {"parallelism.zero_level": 3}).memory.states}
    assert sharded["params"] == pytest.approx(2 * local / 64)
    assert sharded["grad_buffer"] == pytest.approx(4 * local / 64)
    whole = {state.name: state.bytes for state in report("llama3_70b", {"parallelism.zero_level": 0}).memory.states}
    assert whole["exp_avg"] == pytest.approx(4 * local)


def test_expert_states_are_shared_by_the_copies_of_an_expert():
    found = report("gpt_oss_120b")
    attention = 2880 * (64 + 16) * 64 + 64 * 64 * 2880
    expert = 3 * 2880 * 2880
    total = 36 * (attention + 128 * expert + 2880 * 128 + 2 * 2880) + 2880 + 2 * 201088 * 2880
    assert found.architecture.parameters == total
    assert found.architecture.active_parameters == total - 36 * 124 * expert
    # experts: 16 of 128 on a rank, 16 copies of each; everything else has 128 copies
    experts = 6 * 16 * expert
    dense = 6 * (attention + 2880 * 128 + 2 * 2880) + 2880 / 6 + 201088 * 2880
    states = {state.name: state for state in found.memory.states}
    assert states["params"].elements == pytest.approx(experts + dense)
    assert states["exp_avg"].bytes == pytest.approx(4 * (experts / 16 + dense / 128))


def test_activations_of_llama():
    activations = report("llama3_70b").memory.activations
    tokens, element = 2048, 2
    assert activations.tensors == pytest.approx(
        {
            "residual stream": 2 * tokens / 8 * 8192 * element,
            "norm statistics": tokens / 8 * 8,
            "product inputs": 2 * tokens / 8 * 8192 * element,
            "queries": tokens * 8192 / 8 * element,
            "keys": tokens * 1024 / 8 * element,
            "values": tokens * 1024 / 8 * element,
            "attention output": tokens * (8192 / 8 * element + 4 * 64 / 8),
            "up projection": tokens * 2 * 28672 / 8 * element,
            "activation": tokens * 28672 / 8 * element,
        }
    )
    assert (activations.micro_batches_in_flight, activations.num_layers) == (2, 40)
    full = report("llama3_70b", {"performance.activation_checkpointing_type": "full"}).memory
    assert full.activations.per_layer_bytes == tokens / 8 * 8192 * element


def test_super_selective_drops_an_input_of_a_product_and_the_activation():
    kind = "performance.activation_checkpointing_type"
    selective, less = report("llama3_70b"), report("llama3_70b", {kind: "super-selective"})
    dropped = 2048 * 8192 / 8 * 2 + 2048 * 28672 / 8 * 2
    before, after = selective.memory.activations, less.memory.activations
    assert before.per_layer_bytes - after.per_layer_bytes == pytest.approx(dropped)
    # one layer's worth exists while it is computed again
    assert before.total_bytes - after.total_bytes == pytest.approx((2 * 40 - 1) * dropped)
    block = {part.name: part for part in selective.iteration.block}
    again = block["Norms"].forward_s / 2 + block["Glu Act"].forward_s
    assert less.iteration.block_s - selective.iteration.block_s == pytest.approx(again)
    times = [
        report("llama3_70b", {kind: value}).final.iteration_time_s
        for value in ("none", "selective", "super-selective", "full")
    ]
    assert times == sorted(times)
    assert len(set(times)) == 4


def test_matrix_products_are_those_of_the_peak():
    products = {gemm.name: gemm for gemm in report("llama3_70b").gemms}
    assert list(products) == [
        "QKV Projection",
        "Attention Combine Projection",
        "MLP Up Projection",
        "MLP Down Projection",
        "LM Head",
    ]
    up = products["MLP Up Projection"]
    assert (up.weight_shape, up.local_shape, up.rows, up.groups) == ((8192, 57344), (8192, 7168), 2048, 1)
    assert up.flops == 2 * 2048 * 8192 * 7168 == 240_518_168_576
    assert up.compute_s == pytest.approx(up.flops / 300e12)
    assert up.input_s == pytest.approx(2048 * 8192 * 2 / 1.5e12)
    assert products["QKV Projection"].flops == 2 * 2048 * 8192 * 1280
    experts = {gemm.name: gemm for gemm in report("gpt_oss_120b").gemms}
    # 4096 tokens x 4 experts each, over 128 experts, from eight ranks: 1024 rows for each of 16 experts
    assert (experts["MLP Up (Expert)"].rows, experts["MLP Up (Expert)"].groups) == (1024, 16)
    # heads x head_dim, not the hidden size
    assert experts["Attention Combine Projection"].weight_shape == (64 * 64, 2880)


def test_dlcalcs_times_of_products_on_its_own_machine():
    products = {gemm.name: gemm for gemm in report("llama3_70b", fixed=False).gemms}
    names = ("QKV Projection", "Attention Combine Projection", "MLP Up Projection", "MLP Down Projection")
    printed = [f"{products[name].compute_s * 1e3:.3f}" for name in names]
    assert printed == ["0.138", "0.110", "0.771", "0.385"]


def test_bubble():
    bubble = report("llama3_70b").bubble
    assert (bubble.ideal_fraction, bubble.interleaving_multiplier) == (1 / 32, 1.0)
    assert bubble.fraction == pytest.approx(1 / 32, rel=0.05)
    interleaved = report("llama3_70b", {"parallelism.vpp": 2}).bubble
    assert interleaved.ideal_fraction == 1 / 64
    assert interleaved.bubble_s == pytest.approx(bubble.bubble_s / 2, rel=0.05)
    assert report("gpt_oss_120b").bubble.ideal_fraction == 5 / (6 * 64)
    assert report("llama3_70b", {"parallelism.pp": 1, "parallelism.dp": 128}).bubble.bubble_s == 0.0


def test_interleaving_takes_the_line_between_multiples_of_the_pipeline():
    times = {
        batches: report("gpt_oss_120b", {"data.gbs": 128 * batches}).final.iteration_time_s for batches in (60, 64, 66)
    }
    assert times[64] == pytest.approx(times[60] + 4 / 6 * (times[66] - times[60]), rel=1e-9)


def test_pipeline_sends_once_per_micro_batch_and_a_part_of_the_activations():
    found = report("llama3_70b")
    (send,) = found.pipeline
    assert send.bytes == 2048 * 8192 * 2 / 8
    assert send.seconds == pytest.approx(send.bytes / 6.25e9 + 20e-6)
    # not per layer: what 32 micro-batches of two stages expose is far below 40 layers' worth
    assert component(found, "PP Send/Recv (exposed)") < 4 * 32 * send.seconds
    assert "Activation Send" not in {part.name for part in found.iteration.block}


def test_a_ring_uses_the_adapters_of_all_its_ranks_in_a_node():
    inside, across = (
        {t.name: t.seconds for t in report("llama3_70b", {"parallelism.tp": tp, "parallelism.dp": 512 // tp}).tensor}
        for tp in (8, 16)
    )
    size = 2048 * 8192 * 2
    assert inside["TP All-Gather"] == pytest.approx(7 / 8 * size / 300e9 + 7 * 3e-6)
    # two nodes of eight ranks: eight adapters carry it, 15 hops of which one leaves the node on each side
    assert across["TP All-Gather"] == pytest.approx(15 / 16 * size / (8 * 6.25e9) + 14 * 3e-6 + 20e-6)
    halved = report("llama3_70b", {"parallelism.sp": False}).tensor
    assert [transfer.name for transfer in halved] == ["TP All-Reduce"]


def test_context_exchange_is_divided_by_tensor_parallelism():
    changes = {"parallelism.cp": 2, "parallelism.dp": 32, "data.seqlen": 8192}
    wide = report("llama3_70b", changes).context[0]
    narrow = report("llama3_70b", {**changes, "parallelism.tp": 4}).context[0]
    assert wide.bytes == 2 * 4096 * 1024 / 8 * 2
    assert narrow.bytes == 2 * wide.bytes


def test_buckets_pay_their_latency_and_hide_all_but_one():
    one, five = (report("llama3_70b", {"parallelism.n_param_buckets": n}).data_parallel for n in (1, 5))
    gradients = one.collectives[0], five.collectives[0]
    assert gradients[0].latency_s == gradients[1].latency_s
    assert gradients[0].bandwidth_s == pytest.approx(5 * gradients[1].bandwidth_s)
    assert gradients[1].total_s - gradients[0].total_s == pytest.approx(4 * gradients[0].latency_s)
    # a single bucket is complete only when backward is
    assert gradients[0].exposed_s == pytest.approx(gradients[0].total_s)
    assert gradients[1].exposed_s < gradients[0].exposed_s
    parameters = (40 * LLAMA_BLOCK + 8192 / 2 + LLAMA_EMBEDDING) / 8
    # eight tensor ranks of a node are eight rings: each has one adapter
    assert gradients[0].bandwidth_s == pytest.approx(63 / 64 * 4 * parameters / 6.25e9)
    assert five.collectives[1].bandwidth_s == pytest.approx(63 / 64 * 2 * parameters / 5 / 6.25e9)


def test_hidden_data_parallelism_is_what_the_engine_hides():
    problem = build_problem(TrainingConfig.from_mapping(mapping("llama3_70b")), stack=STACK)
    plain = evaluate(Cases.of(problem.model, problem.cluster, problem.layout, problem.workload, problem.stack))
    step = evaluate_step(dataclasses.replace(problem, num_buckets=None))
    assert step.evaluation.step_time_s == pytest.approx(plain.step_time_s, rel=1e-9)
    assert step.reduction.exposed_s == pytest.approx(plain.exposed["gradients"], rel=1e-9)
    assert step.gather.exposed_s == pytest.approx(plain.exposed["weights"], rel=1e-9)


@pytest.mark.parametrize("dp", [2, 4, 64])
def test_datacentres_cost_time_and_never_less_than_one(dp):
    sizes = {"parallelism.dp": dp, "data.gbs": 32 * dp}
    before = report("llama3_70b", sizes).final.iteration_time_s
    for sites in [n for n in (2, 4, 16, 64) if n <= dp]:
        found = report("llama3_70b", {**sizes, "cross_dc.n_dcs": sites, **CROSS})
        for collective in found.data_parallel.collectives:
            assert collective.latency_s >= (sites - 1) * 0.005
            assert collective.total_s >= collective.one_site_s
            assert collective.total_s >= collective.exposed_s >= 0.0
        assert found.final.iteration_time_s >= before
        before = found.final.iteration_time_s


def test_the_link_between_datacentres_is_shared_by_their_accelerators():
    slow = {"cross_dc.n_dcs": 2, "cross_dc.interconnect_latency_s": 0.0}
    found = report("llama3_70b", {**slow, "cross_dc.interconnect_bandwidth_gbps": 4096})
    assert found.cross_dc.bandwidth_per_accelerator_bytes_per_s == 4096e9 / 8 / 512 == 1e9
    parameters = found.data_parallel.parameters
    reduction = found.data_parallel.collectives[0]
    # a ring of 64 replicas crosses with the links of the 32 that a datacentre has: 32 GB/s against 6.25 of one adapter
    assert reduction.bandwidth_s * 5 == pytest.approx(63 / 64 * 4 * parameters / 6.25e9)
    slower = report("llama3_70b", {**slow, "cross_dc.interconnect_bandwidth_gbps": 40.96}).data_parallel
    assert slower.collectives[0].bandwidth_s * 5 == pytest.approx(63 / 64 * 4 * parameters / (32 * 0.01e9))
    pipelines = (report("llama3_70b").pipeline, report("llama3_70b", {**CROSS, "cross_dc.n_dcs": 2}).pipeline)
    assert pipelines[0] == pipelines[1]  # a pipeline stays in its datacentre


def test_experts_cost_memory_only_where_there_are_any():
    every, half = report("gpt_oss_120b"), report("gpt_oss_120b", {"model.moe.moe_frequency": 0.5})
    assert half.architecture.num_moe_layers == 18
    assert half.iteration.block_layers == "average of 18 dense and 18 MoE layers"
    inputs = "expert inputs"
    assert half.memory.activations.tensors[inputs] == pytest.approx(every.memory.activations.tensors[inputs] / 2)
    padded = report("gpt_oss_120b", {"model.moe.capacity_factor": 1.5}).memory.activations.tensors
    assert padded[inputs] == pytest.approx(1.5 * every.memory.activations.tensors[inputs])


MIXED = {
    **{"model.n_layers": 32, "model.hidden_sz": 4096, "model.inter_sz": 14336, "model.n_q_heads": 32},
    **{"model.tie_embeddings": False, "parallelism.tp": 4, "parallelism.dp": 8, "parallelism.ep": 4},
    **{"parallelism.n_param_buckets": 4, "data.gbs": 64, "data.seqlen": 8192},
    **{"performance.activation_checkpointing_type": "none", "hardware.node_type": "p5.48xlarge"},
    "model.moe": {
        **{"n_experts": 8, "expert_inter_sz": 14336, "experts_per_token": 2, "capacity_factor": 1.0},
        **{"moe_frequency": 0.5, "expert_tp_degree": 1},
    },
}


def test_dense_layers_lie_evenly_on_the_stages():
    found = report("llama3_70b", MIXED, fixed=False)
    assert "16 dense and 16 MoE layers are spread evenly over the model: 8 and 8 on each of 2 pipeline stages" in (
        found.assumptions
    )
    # a stage: 16 attentions, 8 dense feed-forwards, 8 routers, one embedding, half the final norm; 2 experts a rank
    expert = 3 * 4096 * 14336
    attention = 4096 * (32 + 16) * 128 + 4096 * 4096 + 2 * 4096
    shared = 16 * attention + 8 * expert + 8 * 4096 * 8 + 128256 * 4096 + 4096 / 2
    states = {state.name: state for state in found.memory.states}
    assert states["params"].elements == pytest.approx(shared / 4 + 8 * 2 * expert) == pytest.approx(3.470e9, rel=1e-3)
    assert states["exp_avg"].elements == pytest.approx(shared / 4 / 8 + 8 * 2 * expert / 8)  # eight copies of each
    gib = {stage: size / 2**30 for stage, size in found.memory.stages.items()}
    assert (gib["first"], gib["last"]) == pytest.approx((41.2, 37.2), abs=0.5)
    assert found.memory.stage == "first"
    assert found.data_parallel.parameters == pytest.approx(states["params"].elements)


@pytest.mark.parametrize(("frequency", "dense"), [(0.25, 12), (0.75, 4), (0.625, 6)])
def test_shares_that_are_no_period_are_spread_too(frequency, dense):
    """16 layers on a stage; what one has beyond those of one with experts alone is their difference."""
    sizes = {
        share: report("llama3_70b", {**MIXED, "model.moe": {**MIXED["model.moe"], "moe_frequency": share}})
        for share in (0.0, frequency, 1.0)
    }
    local = {share: found.data_parallel.parameters for share, found in sizes.items()}
    assert local[frequency] == pytest.approx((dense * local[0.0] + (16 - dense) * local[1.0]) / 16)
    assert sizes[frequency].assumptions[-1].endswith(f"{dense} and {16 - dense} on each of 2 pipeline stages")


def test_stages_that_share_no_whole_layers_say_so():
    found = report("llama3_70b", {**MIXED, "parallelism.pp": 3})
    assert "which pp=3 stages do not share in whole layers: each counts the mean of both kinds" in found.assumptions[-1]
    alone = report("llama3_70b", {**MIXED, "parallelism.pp": 1, "parallelism.dp": 16})
    assert alone.assumptions[-1] == "16 dense and 16 MoE layers are spread evenly over the model"


@pytest.mark.parametrize(
    ("name", "changes", "stage", "alone"),
    [
        ("gpt_oss_120b", {}, "last", 1),
        ("gpt_oss_120b", {"model.vocab_sz": 1000}, "first", 6),
        ("llama3_70b", {"parallelism.vpp": 4, "parallelism.pp": 4, "parallelism.dp": 32}, "first", 4),
        ("llama3_70b", {}, "first", 2),
    ],
)
def test_the_factor_of_interleaving_is_that_of_the_stage_that_is_shown(name, changes, stage, alone):
    memory = report(name, changes).memory
    activations = memory.activations
    assert memory.stage == stage
    assert activations.micro_batches_in_flight == pytest.approx(activations.interleaving_factor * alone)
    held = activations.per_layer_bytes * activations.num_layers * activations.micro_batches_in_flight
    assert activations.layers_bytes == pytest.approx(held)


def test_expert_parallelism_without_experts_splits_nothing():
    with_ep, without = report("llama3_70b", {"parallelism.ep": 8}), report("llama3_70b")
    assert with_ep.final == without.final
    assert "parallelism.ep=8 splits nothing: the model has no experts" in with_ep.assumptions


def test_final_figures():
    found = report("llama3_70b")
    tokens = 2048 * 2048
    products = 80 * (LLAMA_BLOCK - 2 * 8192) + LLAMA_EMBEDDING
    flops = tokens * (6 * products + 80 * 3 * 2 * 2048 * 8192)  # causal: half of the square
    final = found.final
    assert final.model_flops == pytest.approx(flops)
    assert final.ideal_iteration_time_s == pytest.approx(flops / (1024 * 300e12))
    assert final.mfu == pytest.approx(final.ideal_iteration_time_s / final.iteration_time_s)
    assert final.tokens_per_day == pytest.approx(tokens / final.iteration_time_s * 86400)
