"""What the words of a row mean to the planner, and runs of papers that no constant was fitted to."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnomon.plan.planner import plan
from gnomon.plan.published.predict import predict, prepare
from gnomon.plan.published.recomputed_products import some_products
from gnomon.plan.published.rows import problem_of
from gnomon.spec import Layout, Workload
from gnomon.spec._noun import read_mapping
from gnomon.spec.catalog import load_cluster, load_model, load_stack

EXAMPLES = Path(__file__).parents[2] / "examples"

GPT = {
    "id": "a",
    "source": "somebody",
    "year": "2024",
    "hardware": "A100-80GB",
    "accel_per_node": "8",
    "n_accel": "64",
    "n_layers": "48",
    "hidden": "6144",
    "n_heads": "48",
    "vocab": "51200",
    "seq_len": "2048",
    "gbs": "256",
    "mbs": "1",
    "precision": "bf16",
}


def problem(**columns: object):
    return problem_of({**GPT, **{name: str(value) for name, value in columns.items()}})


@pytest.mark.parametrize(
    ("hidden", "gated", "heads"),
    [
        (12288, 0, 96),  # GPT-3 175B
        (14400, 0, 96),  # the nearest is GPT-3 175B, whose heads divide this width
        (6144, 0, 48),  # 40 heads of the nearest (13B) do not divide it: heads of 128
        (8192, 1, 64),  # Llama 2 70B
    ],
)
def test_heads_that_a_source_is_silent_about(hidden: int, gated: int, heads: int) -> None:
    silent = {**GPT, "n_heads": "", "hidden": str(hidden), "gated_mlp": str(gated), "ffn_hidden": str(4 * hidden)}
    stated = {**silent, "n_heads": str(heads)}
    assert problem_of(silent).model == problem_of(stated).model
    assert problem_of(silent).model.num_heads == heads
    assert prepare(silent).remarks == (f"n_heads is blank: taken as {heads}",)
    assert prepare(stated).remarks == ()


@pytest.mark.parametrize(
    ("columns", "family"),
    [
        ({"source": "torchtitan", "zero_stage_or_fsdp": "FSDP"}, "fsdp"),
        ({"source": "torchtitan", "zero_stage_or_fsdp": "FSDP", "overlap_notes": "torch.compile"}, "fsdp-compiled"),
        (
            {"source": "torchtitan", "zero_stage_or_fsdp": "FSDP", "precision": "fp8", "hardware": "H100"},
            "fsdp-compiled",
        ),
        ({"source": "IBM fms-fsdp", "zero_stage_or_fsdp": "FSDP"}, "fsdp-compiled"),
        ({"zero_stage_or_fsdp": "ZeRO-3 (DeepSpeed)"}, "deepspeed"),
        ({"zero_stage_or_fsdp": "ZeRO-3 (DeepSpeed)", "year": 2021}, "deepspeed-2021"),
        ({"zero_stage_or_fsdp": "DeepSpeed ZeRO-2"}, "deepspeed"),
        ({"zero_stage_or_fsdp": "NO_SHARD"}, "fsdp"),
        ({"source": "MaxText", "hardware": "TPU-v5p"}, "xla"),
        ({"source": "dgxc Paxml", "hardware": "H100", "year": 2024}, "xla"),
        ({"year": 2021}, "megatron"),
        ({"flash_attention": 0, "pp_schedule": "1F1B (DeepSpeed)"}, "megatron-deepspeed"),
        ({"source": "BigScience BLOOM", "year": 2022, "pp_schedule": "1F1B (DeepSpeed)"}, "bigscience"),
        ({"source": "bigscience-workshop/transformers", "year": 2024}, "megatron-core"),
        ({}, "megatron-core"),
        ({"year": ""}, "megatron-core"),
        ({"year": 2023, "source": "Megatron-LM"}, "megatron"),  # --use-flash-attn was an option
        ({"year": 2023, "flash_attention": 1}, "megatron-core"),
        ({"year": 2023, "tp": 8}, "megatron"),
        ({"year": 2023, "source": "NeMo"}, "megatron-core"),
        ({"year": 2023, "tp": 8, "precision": "fp8", "hardware": "H100"}, "megatron-core"),
        ({"year": 2023, "source": "Megatron-LM with FlashAttention"}, "megatron-core"),
    ],
)
def test_software_families(columns: dict, family: str) -> None:
    assert problem(**columns).stack.name == family


LLAMA_8B = {
    "n_layers": 32,
    "hidden": 4096,
    "ffn_hidden": 14336,
    "n_heads": 32,
    "n_kv_heads": 8,
    "vocab": 128256,
    "gated_mlp": 1,
    "params_b": 8.03,
}


@pytest.mark.parametrize(
    ("blank", "columns", "value", "remark"),
    [
        ("n_layers", LLAMA_8B, 32, "n_layers is blank: 32 layers have the 8.03 billion parameters of params_b"),
        # 175 billion in a table's rounding; 96 layers of 12 h^2 with their biases and norms
        ("n_layers", {"hidden": 12288, "n_heads": 96, "tied_embeddings": 1, "params_b": 175}, 96, "n_layers is blank"),
        ("ffn_hidden", {**LLAMA_8B, "n_kv_heads": 32}, 11008, "ffn_hidden is blank: taken as 11008"),  # LLaMA 7B's
    ],
)
def test_sizes_that_a_source_is_silent_about(blank: str, columns: dict, value: int, remark: str) -> None:
    row = {**GPT, **{name: str(number) for name, number in columns.items()}, blank: ""}
    field = {"n_layers": "num_layers", "ffn_hidden": "ffn_hidden_size"}[blank]
    prepared = prepare(row)
    assert getattr(prepared.problem.model, field) == value
    assert prepared.remarks[0].startswith(remark)


def test_a_width_of_shared_experts_says_that_there_is_one() -> None:
    experts = {"experts": 8, "top_k": 2, "moe_ffn_hidden": 8192, "shared_ffn_hidden": 8192}
    silent, stated = problem(**experts).model, problem(**experts, n_shared_experts=1).model
    assert silent == stated
    assert silent.moe is not None
    assert silent.moe.shared_expert_ffn_size == 8192


@pytest.mark.parametrize(
    ("columns", "micro_batch", "accumulation"),
    [
        ({"mbs": "", "gbs": 512, "grad_accum": 4}, 2, 4),
        ({"mbs": 16, "gbs": 128}, 2, 1),  # more than a rank's batch
        ({"mbs": 2, "gbs": 512}, 2, 4),
    ],
)
def test_micro_batches(columns: dict, micro_batch: int, accumulation: int) -> None:
    found = prepare({**GPT, **{name: str(value) for name, value in columns.items()}})
    workload = found.problem.workload
    assert (workload.micro_batch, workload.accumulation(64)) == (micro_batch, accumulation)
    contradicts = ("mbs=16 is more than a rank's batch of 2: taken as 2",)
    assert found.remarks == (contradicts if columns["mbs"] == 16 else ())


@pytest.mark.parametrize(
    ("columns", "micro_batch", "accumulation"),
    [
        ({"tp": 4, "mbs": 2, "gbs": 128}, 8, 1),  # 2 of each of 4 chips
        ({"tp": 4, "mbs": 0.25, "gbs": 16}, 1, 1),  # a quarter of a sequence
        ({"tp": 4, "mbs": 1, "gbs": 128, "grad_accum": 2}, 4, 2),
        ({"tp": 4, "mbs": 1, "gbs": ""}, 4, 1),
        ({"tp": 4, "mbs": 2, "gbs": 256}, 2, 8),  # not the batch of a chip
        ({"mbs": "", "gbs": 192}, 3, 1),
    ],
)
def test_tpu_rows_state_the_batch_of_a_chip(columns: dict, micro_batch: int, accumulation: int) -> None:
    tpu = {"hardware": "TPU-v5p", "accel_per_node": 4, "source": "MaxText", "zero_stage_or_fsdp": "FSDP"}
    found = problem(**tpu, **columns)
    assert found.workload.micro_batch == micro_batch
    assert found.workload.accumulation(found.layout.dp) == accumulation


def test_fewer_micro_batches_than_stages_pass_all_of_them() -> None:
    """p + (m - 1) / v times one micro-batch's time on a rank; the line through 2p and 3p falls short of that."""
    shape = {"hardware": "H100", "n_accel": 8, "pp": 8, "flash_attention": 1, "year": 2024}
    rows = [
        {**GPT, **{k: str(v) for k, v in {**shape, "gbs": m, "vp_or_interleave": v}.items()}}
        for m, v in ((1, 6), (4, 6), (8, 6), (16, 6), (1, 1))
    ]
    one, four, eight, sixteen, plain = (p.step_time_s for p in predict(rows))
    each = (sixteen - eight) / 8
    assert eight - four == pytest.approx(4 * each / 6)
    assert four - one == pytest.approx(3 * each / 6)
    assert 0.95 * plain < one < 1.1 * plain  # no shorter than through a pipeline that does not interleave
    memory = [p.memory_gb_per_accel for p in predict(rows)]
    assert memory[0] < memory[1] < memory[2]
    assert memory[0] == pytest.approx(memory[4], rel=1e-9)


@pytest.mark.parametrize(("schedule", "count", "more"), [("ZBV", 12, 16), ("DualPipe", 17, 18), ("V-Half", 15, 16)])
def test_schedules_that_need_more_micro_batches_are_read_off_their_line(schedule: str, count: int, more: int) -> None:
    shape = {"n_accel": 8, "pp": 8, "pp_schedule": schedule, "hardware": "H100", "year": 2024, "flash_attention": 1}
    rows = [{**GPT, **{k: str(v) for k, v in {**shape, "gbs": m}.items()}} for m in (count, more, more + 2)]
    fewer, able, further = (p.step_time_s for p in predict(rows))
    assert able - fewer == pytest.approx((more - count) * (further - able) / 2)
    assert "does not run with" in prepare(rows[0]).remarks[-1]
    assert prepare(rows[1]).remarks == ()


@pytest.mark.parametrize(
    ("columns", "expert_tp"), [({"tp": 8}, 8), ({"tp": 8, "etp": 1}, 1), ({"tp": 4, "ep": 8}, 1), ({"tp": 1}, 1)]
)
def test_experts_are_split_like_the_rest_of_the_model_unless_they_are_spread(columns: dict, expert_tp: int) -> None:
    experts = {"experts": 8, "top_k": 2, "moe_ffn_hidden": 8192}
    row = {**GPT, **{k: str(v) for k, v in {**experts, **columns}.items()}}
    found = prepare(row)
    assert found.problem.layout.expert_tp == expert_tp
    silent = ("etp is blank: experts are spread by ep=8 and not split",)
    assert found.remarks == (silent if "ep" in columns else ())


@pytest.mark.parametrize(("words", "share"), [("mlp", 0.03), ("mla_up_proj, mlp", 0.13), ("moe", 0.65)])
def test_modules_computed_again_in_a_mixture(words: str, share: float) -> None:
    """DeepSeek-V3: a token meets 187.1 M weights of attention, 54.5 M of them up projections of latents, and 396.4 M of
    the feed-forward, which is dense in 3 of 61 layers."""
    assert some_products(words, load_model("deepseek-v3"), []) == ("products", share)


@pytest.mark.parametrize(
    ("fsdp", "ranks"), [("FSDP", 256), ("", 256), ("dcn_fsdp=2, ici_fsdp=256", 512), ("FSDP 64", 64)]
)
def test_slices_are_copies_of_each_other(fsdp: str, ranks: int) -> None:
    row = {"hardware": "TPU-v6e", "n_accel": 512, "gbs": 512, "accel_per_node": 4, "zero_stage_or_fsdp": fsdp}
    assert problem(**row, interconnect_note="2 x v6e-256").layout.shard_ranks == ranks


@pytest.mark.parametrize(
    ("notes", "lost"),
    [
        ("overlap: off", {"tensor", "data", "shard", "context", "expert"}),
        ("overlap=disabled", {"tensor", "data", "shard", "context", "expert"}),
        ("no communication overlap", {"tensor", "data", "shard", "context", "expert"}),
        ("TP overlap off", {"tensor"}),
        ("overlap_grad_reduce=False, tp_comm_overlap on", {"data"}),
        ("all-to-all not overlapped", {"expert"}),
        *((words, {"tensor", "data", "shard", "context", "expert"}) for words in ("w/o overlap", "disable overlap")),
        ("no comm/compute overlap", {"tensor", "data", "shard", "context", "expert"}),
        ("communication overlap turned off", {"tensor", "data", "shard", "context", "expert"}),
        ("DP comm isn't overlapped", {"data"}),
        ("communication not overlapped in 1F1B pipeline", {"tensor", "data", "shard", "context", "expert"}),
        ("no overlap with pp=8", {"tensor", "data", "shard", "context", "expert"}),
        *((words, set()) for words in ("no CUDA graphs but overlap on", "no recompute but full overlap")),
        *((words, set()) for words in ("overlap_p2p_comm=False", "p2p overlap off", "pipeline overlap disabled")),
        ("everything overlapped", set()),
    ],
)
def test_what_is_not_overlapped(notes: str, lost: set) -> None:
    with_all, stack = problem().stack, problem(overlap_notes=notes).stack
    kinds = ("tensor", "data", "shard", "context", "expert")
    found = {kind: (getattr(with_all, f"overlap_{kind}"), getattr(stack, f"overlap_{kind}")) for kind in kinds}
    assert all(before > 0 for before, _ in found.values())
    assert {kind for kind, (before, after) in found.items() if after != before} == lost
    assert all(found[kind][1] == 0 for kind in lost)


def test_tensor_parallelism_under_fsdp_costs_time_and_keeps_the_family() -> None:
    columns = {"source": "torchtitan", "zero_stage_or_fsdp": "FSDP2", "recompute": "selective op", "n_accel": 64}
    one, two = (predict([{**GPT, **{k: str(v) for k, v in columns.items()}, "tp": tp}])[0] for tp in ("1", "2"))
    assert problem(**columns, tp=2).stack.name == "fsdp"
    assert two.tokens_per_s_per_accel < one.tokens_per_s_per_accel


@pytest.mark.parametrize(
    ("notes", "ahead"),
    [
        ("", True),
        ("CUDA_LAUNCH_BLOCKING=1", False),
        ("DDP not overlapped; synchronous launches", False),
        ("CUDA_LAUNCH_BLOCKING=0", True),
        ("asynchronous launches", True),
    ],
)
def test_launches_that_wait_for_their_kernels(notes: str, ahead: bool) -> None:
    assert problem(year=2021, overlap_notes=notes).stack.asynchronous is ahead


@pytest.mark.parametrize(("notes", "ahead"), [("", False), ("CUDA_LAUNCH_BLOCKING=0", True), ("DP overlap off", False)])
def test_job_scripts_of_bigscience_launch_synchronously_unless_a_row_says_otherwise(notes: str, ahead: bool) -> None:
    stack = problem(source="BigScience BLOOM", year=2022, overlap_notes=notes).stack
    assert stack.asynchronous is ahead
    assert stack.dispatch_s == load_stack("megatron").dispatch_s
    assert stack.framework_bytes == load_stack("megatron-deepspeed").framework_bytes


@pytest.mark.parametrize(
    ("notes", "tensor", "expert"),
    [
        ("", 0.0, 0.0),
        ("async TP", 0.7, 0.0),
        ("AsyncTP on", 0.7, 0.0),
        ("1F1B overlap of experts", 0.0, 0.9),
        ("overlap_moe_expert_parallel_comm", 0.0, 0.9),
        ("moe a2a overlap; DP overlap off", 0.0, 0.9),
        ("async TP off", 0.0, 0.0),
        ("no async TP", 0.0, 0.0),
        ("enable_async_tensor_parallel=False", 0.0, 0.0),
        ("vanilla TP (not async TP)", 0.0, 0.0),
        ("EP overlap not enabled", 0.0, 0.0),
        ("EP overlap: not stated", 0.0, 0.0),
        ("DP overlap and EP off", 0.0, 0.0),
        ("1F1B with TP overlap", 0.0, 0.0),
        ("interleaved 1F1B without DP overlap", 0.0, 0.0),
        ("moe with dp overlap", 0.0, 0.0),
        ("grads overlapped with expert compute", 0.0, 0.0),
    ],
)
def test_overlaps_that_are_off_by_default(notes: str, tensor: float, expert: float) -> None:
    stack = problem(source="torchtitan", year=2025, zero_stage_or_fsdp="FSDP2", overlap_notes=notes).stack
    assert (stack.overlap_tensor, stack.overlap_expert) == (tensor, expert)


@pytest.mark.parametrize("notes", ["data-parallel overlap off", "overlap of data-parallel off"])
def test_a_clause_that_switches_an_overlap_off(notes: str) -> None:
    stack = problem(source="NeMo", overlap_notes=notes).stack
    assert stack.overlap_data == 0.0
    assert stack.overlap_tensor > 0.0


@pytest.mark.parametrize("notes", ["overlap of gradients with no exposed communication", "overlap of TP comm 0.9"])
def test_a_clause_that_switches_no_overlap_off(notes: str) -> None:
    assert problem(source="NeMo", overlap_notes=notes).stack == problem(source="NeMo").stack


@pytest.mark.parametrize(
    ("columns", "micro_batch", "steps"),
    [
        ({"pp": 4, "mbs": 8, "gbs": 128}, 2, 4),  # 16 ranks of data parallelism, each with 8 sequences at once
        ({"pp": 4, "mbs": "", "gbs": 128}, 2, 4),
        ({"pp": 4, "mbs": 1, "gbs": 128}, 1, 8),
        ({"pp": 2, "mbs": "", "gbs": 224}, 1, 7),  # the 7 of a rank have no half
        ({"pp": 1, "mbs": 2, "gbs": 128}, 2, 1),
        ({"pp": 4, "mbs": 8, "gbs": 256, "grad_accum": 2}, 8, 2),
    ],
)
def test_a_pipeline_of_torchtitan_cuts_the_batch_of_a_rank(columns: dict, micro_batch: int, steps: int) -> None:
    found = problem(source="torchtitan", year=2025, zero_stage_or_fsdp="FSDP2", **columns)
    assert found.workload.micro_batch == micro_batch
    assert found.workload.accumulation(found.layout.dp) == steps


@pytest.mark.parametrize(("year", "early"), [(2023, False), (2024, True)])
def test_checkpoints_of_fsdp_stop_early_since_pytorch_2_1(year: int, early: bool) -> None:
    assert problem(source="FSDP", year=year, zero_stage_or_fsdp="FSDP").stack.stops_early is early


@pytest.mark.parametrize("label", ["int8", "INT8 (AQT)", "w8a8"])
def test_int8_is_a_precision(label: str) -> None:
    assert problem(hardware="TPU-v6e", source="MaxText", precision=label).workload.precision == "int8"


@pytest.mark.parametrize(
    "label", ["bf16; int8 optimizer states", "bf16 (AQT off)", "bf16, no int8", "int8 AdamW, bf16 compute"]
)
def test_int8_of_something_else(label: str) -> None:
    assert problem(precision=label).workload.precision == "bf16"


@pytest.mark.parametrize(("mbs", "micro_batch"), [(2, 4), (4, 4)])
def test_the_two_devices_of_an_ironwood_chip_take_one_pass(mbs: int, micro_batch: int) -> None:
    """MaxText states the batch of a device, of which a chip of TPU7x has two."""
    found = problem(hardware="TPU-v7x", source="MaxText", n_accel=64, gbs=256, mbs=mbs, accel_per_node=4)
    assert found.workload.micro_batch == micro_batch
    assert found.workload.accumulation(found.layout.dp) == 1


def test_families_that_run_the_same_layers_launch_them_alike() -> None:
    ours, theirs = problem(year=2021).stack, problem(flash_attention=0, pp_schedule="1F1B (DeepSpeed)").stack
    assert (ours.dispatch_s, ours.run_ahead, ours.elementwise_passes) == (
        theirs.dispatch_s,
        theirs.run_ahead,
        theirs.elementwise_passes,
    )
    blocking = problem(source="BigScience BLOOM", year=2022).stack
    assert ours.shard_rate != theirs.shard_rate == blocking.shard_rate


def test_shards_stay_gathered_between_pipeline_stages() -> None:
    assert problem(zero_stage_or_fsdp="FSDP").layout.zero_stage == 3
    assert problem(zero_stage_or_fsdp="FSDP", pp=4).layout.zero_stage == 1
    assert problem(zero_stage_or_fsdp="HSDP 8", pp=4).layout.shard_ranks is None


@pytest.mark.parametrize(
    ("name", "schedule", "chunks"),
    [
        ("1F1B", "1f1b", 1),
        ("1F1B-I", "1f1b", 2),
        ("interleaved", "1f1b", 2),
        ("1f1b-interleaved-vpp4", "1f1b", 4),
        ("ZB-1p", "zb-h1", 1),
        ("ZB-2p", "zb-h2", 1),
        ("zbv-formatted", "zb-v", 1),
        ("ZeroBubble-V", "zb-v", 1),
        ("zero bubble V", "zb-v", 1),
        ("Zero Bubble", "zb-h1", 1),
        ("ZBV-Half", "v-half", 1),
        ("DualPipe", "dualpipe", 1),
        ("DualPipeV", "zb-v", 1),
    ],
)
def test_schedules(name: str, schedule: str, chunks: int) -> None:
    layout = problem(pp=4, pp_schedule=name).layout
    assert (layout.schedule, layout.vpp) == (schedule, chunks)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"experts": 4, "top_k": 8, "moe_ffn_hidden": 1024}, "experts_per_token=8 exceeds num_experts=4"),
        ({"experts": 8, "top_k": 2, "moe_ffn_hidden": -1}, "not be negative"),
        ({"hidden": 1e11}, "at most 1e+07"),
        ({"n_heads": 999_999_999_989}, "at most 100000"),
        ({"n_layers": "", "params_b": 1e300}, "at most 1e+09"),
        ({"head_dim": 1e308}, "at most 1e+07"),
        ({"hardware": "RTX-4090"}, "the catalog has no cluster"),
        ({"tp": 5}, "does not divide n_accel=64"),
        ({"pp": 4, "vp_or_interleave": 13}, "pp x vpp = 4 x 13 model chunks need as many layers"),
        ({"ep": 8}, "split experts, but"),
        ({"experts": 8, "top_k": 2, "moe_ffn_hidden": 1024, "ep": 16}, "ep=16 does not divide the 8 experts"),
        ({"cp": 8, "seq_len": 4100}, "cp=8 splits seq_len=4100 into 16 equal pieces"),
        ({"tp": 8, "sp": 1, "seq_len": 4100}, "sequence_parallel splits the 4100 tokens"),
        ({"n_accel": 8, "gbs": 3}, "gbs=3 gives dp=8 ranks less than one sequence each"),
    ],
)
def test_what_cannot_be_is_refused_in_words(columns: dict, words: str) -> None:
    found = predict([{**GPT, **{name: str(value) for name, value in columns.items()}}])[0]
    assert found.refused is not None
    assert words in found.refused


def test_one_accelerator_needs_no_cluster() -> None:
    assert predict([{**GPT, "hardware": "RTX-4090", "n_accel": "1", "n_layers": "4", "gbs": "1"}])[0].refused is None


# Korthikanti et al., arXiv 2205.05198, table 5: (GPUs, layers, hidden, heads, pp, vpp, batch, micro-batch, seconds with
# everything computed again, seconds with sequence parallelism and selective recomputation)
REDUCING_RECOMPUTATION = [
    (8, 48, 6144, 64, 1, 1, 4, 4, 1.42, 1.10),
    (64, 96, 12288, 96, 8, 3, 64, 1, 18.13, 13.75),
    (280, 105, 20480, 128, 35, 3, 280, 1, 49.05, 37.83),
    (512, 128, 25600, 160, 64, 1, 512, 1, 94.42, 71.49),
]


@pytest.mark.parametrize("run", REDUCING_RECOMPUTATION, ids=["22B", "175B", "530B", "1T"])
def test_runs_of_a_paper_that_nothing_was_fitted_to(run: tuple) -> None:
    ranks, layers, hidden, heads, pp, vpp, batch, micro_batch, *measured = run
    columns = {"n_accel": ranks, "n_layers": layers, "hidden": hidden, "n_heads": heads, "tp": 8, "pp": pp}
    columns |= {"vp_or_interleave": vpp, "gbs": batch, "mbs": micro_batch, "precision": "fp16", "year": 2022}
    columns |= {"interconnect_note": "Selene"}
    row = {**GPT, **{name: str(value) for name, value in columns.items()}}
    full, selective = predict([{**row, "recompute": "full", "sp": "0"}, {**row, "recompute": "selective", "sp": "1"}])
    assert full.step_time_s == pytest.approx(measured[0], rel=0.2)
    assert selective.step_time_s == pytest.approx(measured[1], rel=0.2)
    # what the paper is about: how much the two differ
    assert selective.step_time_s / full.step_time_s == pytest.approx(measured[1] / measured[0], rel=0.05)


def test_deepseek_v3_trains_a_trillion_tokens_in_the_hours_of_its_report() -> None:
    """180 thousand H800 hours (arXiv 2412.19437, section 1); DualPipe hides the all-to-all of the experts."""
    problem = read_mapping(EXAMPLES / "plan" / "deepseek-v3-h800.yaml")
    estimate = plan(
        load_model(problem["model"]),
        load_cluster(**problem["cluster"]),
        Layout.from_mapping(problem["layout"]),
        Workload.from_mapping(problem["workload"]),
    )
    assert 1e12 / estimate.tokens_per_s_per_accelerator / 3600 == pytest.approx(180e3, rel=0.15)
    exposed = estimate.time.communication_s
    straight = estimate.layout.model_copy(update={"schedule": "zb-h1"})
    assert plan(estimate.model, estimate.cluster, straight, estimate.workload).time.communication_s > 3 * exposed
