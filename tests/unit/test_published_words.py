"""What the words of single columns mean: sharding, recomputation, schedule, precision, attention."""

import pytest

from gnomon.errors import PlanError
from gnomon.plan.published.predict import prepare
from gnomon.plan.published.rows import read_row

ROW = {
    "id": "a", "source": "somebody", "year": "2024", "hardware": "A100-80GB", "accel_per_node": "8", "n_accel": "128",
    "n_layers": "40", "hidden": "4096", "n_heads": "32", "vocab": "32000", "seq_len": "2048", "gbs": "256", "mbs": "1",
    "precision": "bf16", "gated_mlp": "1", "ffn_hidden": "11008",
}  # fmt: skip
FULL, SELECTIVE, NOTHING = ("full", 1.0), ("selective", 1.0), ("none", 1.0)


def read(**columns: object):
    return read_row({**ROW, **{name: str(value) for name, value in columns.items()}})


@pytest.mark.parametrize(
    ("text", "stage", "group", "stack"),
    [
        ("FSDP1", 3, None, "fsdp"),
        ("FSDP2", 3, None, "fsdp"),
        ("FSDP v2", 3, None, "fsdp"),
        ("FSDP2 (8-way)", 3, 8, "fsdp"),
        ("FSDP=8", 3, 8, "fsdp"),
        ("FSDP 8", 3, 8, "fsdp"),
        ("FSDP (FSDP=1)", 3, None, "fsdp"),
        ("FSDP=-1", 3, None, "fsdp"),
        ("ici_fsdp=-1", 3, None, "fsdp"),
        ("dcn_fsdp=2, ici_fsdp=32", 3, 64, "fsdp"),
        ("HSDP: 4 replicas x 32 shards", 3, 32, "fsdp"),
        ("FSDP disabled", 1, None, "megatron-core"),
        ("8-way FSDP", 3, 8, "fsdp"),
        ("FSDP 64 per slice", 3, 64, "fsdp"),
        ("FSDP across 2 pods", 3, None, "fsdp"),
        ("SHARD_GRAD_OP", 2, None, "fsdp"),
        ("FULL_SHARD", 3, None, "fsdp"),
        ("HYBRID_SHARD", 3, 8, "fsdp"),
        ("HSDP", 3, 8, "fsdp"),
        ("HSDP 16", 3, 16, "fsdp"),
        ("dp_shard=8, dp_replicate=16", 3, 8, "fsdp"),
        ("dp_shard=-1", 3, None, "fsdp"),
        ("dp_shard=1, dp_replicate=128", 0, None, "megatron-core"),
        ("FSDP (ZeRO-3)", 3, None, "fsdp"),
        ("ZeRO-3", 3, None, "deepspeed"),
        ("DeepSpeed ZeRO-3", 3, None, "deepspeed"),
        ("ZeRO stage 3", 3, None, "deepspeed"),
        ("stage 3", 3, None, "deepspeed"),
        ("ZeRO3", 3, None, "deepspeed"),
        ("3", 3, None, "deepspeed"),
        ("zero_stage=2", 2, None, "megatron-core"),
        ("ZeRO-1", 1, None, "megatron-core"),
        ("distributed optimizer", 1, None, "megatron-core"),
        ("FSDP 0", 1, None, "megatron-core"),
        ("DDP (FSDP=0)", 1, None, "megatron-core"),
        ("not stated", 1, None, "megatron-core"),
        ("No sharding", 0, None, "megatron-core"),
        *((words, 0, None, "megatron-core") for words in ("no distributed optimizer", "w/o sharding")),
        *(
            (words, 0, None, "megatron-core")
            for words in ("use_distributed_optimizer=False", "distributed optimizer off", "without optimizer sharding")
        ),
        ("fully_shard", 3, None, "fsdp"),
        ("sharded over 16 GPUs", 3, 16, "fsdp"),
        ("sharded checkpoint", 3, None, "megatron-core"),
        ("distributed optimizer no offload", 1, None, "megatron-core"),
        ("distributed optimizer not used", 0, None, "megatron-core"),
        *((words, 3, None, "fsdp") for words in ("FSDP w/o CPU offload", "FSDP, no cpu offload")),
        ("none (DDP)", 0, None, "megatron-core"),
        ("NO_SHARD", 0, None, "fsdp"),
        ("DDP", 0, None, "megatron-core"),
        ("0", 0, None, "megatron-core"),
    ],
)
def test_sharding(text: str, stage: int, group: int | None, stack: str) -> None:
    problem, remarks = read(zero_stage_or_fsdp=text)
    assert (problem.layout.zero_stage, problem.layout.shard_ranks, problem.stack.name) == (stage, group, stack)
    assert remarks == ()


@pytest.mark.parametrize("hardware", ["TPU7x", "Ironwood", "Trillium", "v5p"])
def test_tpus_run_xla_however_they_are_called(hardware: str) -> None:
    assert read(hardware=hardware, accel_per_node=4)[0].stack.name == "xla"


def test_groups_of_torchtitan_have_the_ranks_of_context_parallelism_too() -> None:
    assert read(zero_stage_or_fsdp="dp_shard=8, dp_replicate=8", cp=2)[0].layout.shard_ranks == 16
    assert read(zero_stage_or_fsdp="HSDP", tp=2, accel_per_node=4)[0].layout.shard_ranks == 2


@pytest.mark.parametrize(
    ("text", "remark"),
    [
        ("FSDP 48", "groups of 48 ranks that shard do not divide dp x cp = 128: sharded over all"),
        ("magic", "zero_stage_or_fsdp 'magic' names no known sharding: stage 1 of megatron-core taken"),
        ("HSDP 16x8", "zero_stage_or_fsdp has two numbers without names: sharded over the 8 of a node"),
    ],
)
def test_sharding_that_leaves_something_open(text: str, remark: str) -> None:
    assert read(zero_stage_or_fsdp=text)[1] == (remark,)


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        *((word, {"year": 2021}, NOTHING) for word in ("off", "disabled", "no", "False", "none", "0", "no recompute")),
        *((word, {"year": 2021}, FULL) for word in ("", "N/A", "unknown", "-", "not stated")),
        *((word, {"year": 2023, "tp": 2}, SELECTIVE) for word in ("", "not stated")),
        *((word, {}, NOTHING) for word in ("", "n/a", "Unknown", "Not stated")),
        *((word, {}, FULL) for word in ("full", "true", "yes", "full (HFU 57.8 % vs MFU 46.2 %)")),
        *(
            (word, {}, NOTHING)
            for word in ("recompute: none", "remat_policy none", "activation_checkpoint.mode = none")
        ),
        *((word, {}, NOTHING) for word in ("recompute_granularity=None", "AC off", "no selective recompute")),
        *((word, {}, FULL) for word in ("remat", "activation checkpointing", "recompute", "remat_policy: full")),
        *((word, {}, SELECTIVE) for word in ("selective", "minimal", "not full; selective", "core_attn")),
        ("recompute_granularity=selective, recompute_modules=[core_attn]", {}, SELECTIVE),
        # of a GPT layer's 12 h^2 weights 3 make queries, keys and values, 1 the output, 8 the feed-forward
        *(
            (word, {}, ("full", 0.75))
            for word in ("save_qkv_proj", "qkv_proj_offloaded", "selective (qkv_proj offloaded)")
        ),
        ("save_out_proj", {}, ("full", 0.92)),
        ("custom (out_proj: offload, query_proj: offload, mlpwi: remat)", {}, ("full", 0.67)),
        ("save_dot_except_mlp", {}, ("full", 0.67)),
        *((word, {}, ("products", 0.67)) for word in ("mlp", "recompute_modules: [core_attn, mlp]")),
        ("custom: context=device, query_proj=device, key_proj=device, value_proj=device", {}, ("products", 0.75)),
        ("custom: context=device", {}, ("products", 1.0)),
        ("minimal_with_context", {}, NOTHING),
        *((word, {}, FULL) for word in ("act ckpt on", "full (long context)", "full, 128k context")),
        *((word, {}, SELECTIVE) for word in ("selective, context parallel", "selective (attention, norm)")),
        ("save_dot_except_mlpwi", {}, ("full", 0.45)),
        ("selective op", {"tp": 2}, ("per_op", 1.0)),
        ("selective", {"source": "torchtitan", "zero_stage_or_fsdp": "FSDP2"}, ("per_op", 1.0)),
        ("selective 2", {"source": "torchtitan", "zero_stage_or_fsdp": "FSDP2"}, ("full", 0.5)),
        ("full (50% of layers)", {}, ("full", 0.5)),
        ("every 2nd layer", {}, ("full", 0.5)),
        ("every other layer", {}, ("full", 0.5)),
        ("block, 20 layers", {}, ("full", 0.5)),
        ("10 of 40 layers", {}, ("full", 0.25)),
        ("full, uniform, 1 layer", {}, FULL),
        ("full (0% of layers)", {}, NOTHING),
        ("selective", {"zero_stage_or_fsdp": "FSDP"}, ("full", 0.5)),
        ("selective, every 4 layers", {"zero_stage_or_fsdp": "FSDP"}, ("full", 0.25)),
        *((word, {"year": 2021}, NOTHING) for word in ("N", "unused", "w/o activation checkpointing")),
        *((word, {"year": 2021}, NOTHING) for word in ("full recompute disabled", "selective recompute disabled")),
        *(
            (word, {}, FULL)
            for word in ("full, offload disabled", "full with offload disabled", "full cpu_offload=false")
        ),
        ("50%", {}, ("full", 0.5)),
    ],
)
def test_recomputation(text: str, columns: dict, expected: tuple) -> None:
    problem, remarks = read(recompute=text, **columns)
    assert (problem.layout.recompute, problem.layout.recompute_share) == expected
    assert remarks == ()


@pytest.mark.parametrize(
    ("text", "share"),
    # of Llama 2 7B's 4 h^2 and 3 h f weights those of the down projection never come again in an XLA program
    [("context=device", 1.0), ("context=device, query_proj=device", 0.68), ("context=device, mlpwo=device", 1.0)],
)
def test_shares_of_a_program_that_leaves_the_last_product_out(text: str, share: float) -> None:
    columns = {"hardware": "TPU-v5p", "hidden": 4096, "ffn_hidden": 11008, "n_heads": 32, "gated_mlp": 1}
    problem, _ = read(recompute=f"custom: {text}", source="MaxText", n_layers=32, **columns)
    assert (problem.layout.recompute, problem.layout.recompute_share) == ("products", share)


def test_recomputation_that_leaves_something_open() -> None:
    for words in ("layernorm, moe_act", "norm, act", "fine-grained (norm, act)"):
        problem, remarks = read(recompute=words)
        assert problem.layout.recompute == "none"
        assert remarks == (f"recompute '{words}' computes no product again: priced as none",)
    assert read(recompute="custom")[1] == ("recompute 'custom' is no known word: taken as full",)
    assert read(recompute="magic")[1] == ("recompute 'magic' is no known word: taken as full",)
    found = "recompute 'block, 20 layers' is taken as 50% of all layers, not of a pipeline stage's"
    assert read(recompute="block, 20 layers", pp=2)[1] == (found,)


@pytest.mark.parametrize(
    ("name", "chunks", "schedule", "vpp"),
    [
        ("interleaved 1F1B", 5, "1f1b", 5),
        ("interleaved 1F1B (vpp=5)", "", "1f1b", 5),
        ("interleaved, 5 chunks", "", "1f1b", 5),
        ("1F1B (non-interleaved)", "", "1f1b", 1),
        ("AFAB", "", "gpipe", 1),
        ("GPipe", "", "gpipe", 1),
        ("N/A", 2, "1f1b", 2),
    ],
)
def test_schedules(name: str, chunks: int | str, schedule: str, vpp: int) -> None:
    problem, remarks = read(pp=4, pp_schedule=name, vp_or_interleave=chunks)
    assert (problem.layout.schedule, problem.layout.vpp) == (schedule, vpp)
    assert remarks == ()


def test_schedules_that_leave_something_open() -> None:
    problem, remarks = read(pp=4, pp_schedule="interleaved 1F1B")
    assert problem.layout.vpp == 2
    assert remarks == ("pp_schedule is interleaved and the number of chunks is not stated: taken as 2",)
    remarks = read(pp=4, pp_schedule="ScheduleInterleavedZeroBubble")[1]
    assert remarks[0].endswith("is priced as interleaved 1f1b, whose bubble is larger")
    assert read(pp=4, vp_or_interleave=7)[1] == ("pp x vpp = 4 x 7 chunks do not divide the 40 layers",)
    assert read(pp=4, pp_schedule="Chimera")[1] == ("pp_schedule 'chimera' is no known schedule: priced as 1f1b",)
    assert read(pp=1, pp_schedule="Chimera")[1] == ()


@pytest.mark.parametrize(
    ("label", "hardware", "precision"),
    [
        ("bfloat16", "A100-80GB", "bf16"),
        ("float16", "A100-80GB", "fp16"),
        ("half", "A100-80GB", "fp16"),
        ("mixed", "A100-80GB", "bf16"),
        ("mixed", "V100-32GB", "fp16"),
        ("", "A100-80GB", "bf16"),
        ("", "V100-32GB", "fp16"),
        ("fp16/bf16", "A100-80GB", "bf16"),
        *((label, "H100", "bf16") for label in ("BF16 (no FP8)", "bf16, fp8=False", "bf16, fp8 off", "non-FP8 BF16")),
        *((label, "H100", "bf16") for label in ("bf16, FP8 optimizer states", "bf16 + fp8 all-gather")),
        *(
            (label, "H100", "fp8")
            for label in ("FP8 (E4M3), bf16 gradients", "fp8 compute", "float8 all-gather fp8 compute")
        ),
        ("FP8-MX", "H100", "mxfp8"),
        ("NVFP4", "B200", "nvfp4"),
        ("float32", "A100-80GB", "fp32"),
    ],
)
def test_precisions(label: str, hardware: str, precision: str) -> None:
    assert read(precision=label, hardware=hardware)[0].workload.precision == precision


@pytest.mark.parametrize("task", ["LoRA", "QLoRA fine-tuning", "sft (lora)"])
def test_lora_is_refused(task: str) -> None:
    with pytest.raises(PlanError, match="LoRA"):
        read(task=task)


@pytest.mark.parametrize("task", ["inference", "serving", "Text generation"])
def test_what_is_no_training_is_refused(task: str) -> None:
    with pytest.raises(PlanError, match="see gnomon plan inference"):
        read(task=task)


@pytest.mark.parametrize("task", ["decoder-only pretraining", "text generation pretraining", "training (no inference)"])
def test_training_is_not_taken_for_serving(task: str) -> None:
    assert read(task=task)[1] == ()


@pytest.mark.parametrize(
    ("columns", "remark"),
    [
        (
            {"tp": 8, "seq_len": 2052},
            "sp is blank and tp=8 does not divide the sequence: no sequence parallelism is taken",
        ),
        ({"dp": 4}, "dp=4 is not n_accel / (tp x pp x cp) = 128, which is taken"),
        ({"grad_accum": 3}, "grad_accum=3 is not gbs / (mbs x dp) = 256 / (1 x 128): not used"),
        (
            {"zero_stage_or_fsdp": "ZeRO-3 + CPU offload"},
            "zero_stage_or_fsdp states an offload to the host, which is not priced: as without it",
        ),
    ],
)
def test_what_contradicts_the_rest_or_is_not_priced_is_remarked(columns: dict, remark: str) -> None:
    assert read(**columns)[1] == (remark,)


@pytest.mark.parametrize(
    "columns", [{"dp": 128, "grad_accum": 2}, {"dp": "none"}, {"zero_stage_or_fsdp": "ZeRO-3, no offload"}]
)
def test_what_agrees_is_not_remarked(columns: dict) -> None:
    assert read(**columns)[1] == ()


@pytest.mark.parametrize(
    ("kind", "stated", "heads", "remarks"),
    [
        ("mqa", "", 1, ()),
        ("multi-query", "", 1, ()),
        ("mqa, parallel attn+mlp", "", 1, ()),
        ("gqa", 8, 8, ()),
        ("gqa", "", 32, ("attn_type is gqa and n_kv_heads is blank: as many key heads as heads are taken",)),
        ("mha", "", 32, ()),
    ],
)
def test_key_heads(kind: str, stated: int | str, heads: int, remarks: tuple) -> None:
    problem, found = read(attn_type=kind, n_kv_heads=stated)
    assert problem.model.num_kv_heads == heads
    assert found == remarks


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"n_heads": 40, "hidden": 5120, "tp": 16}, "tp=16 does not divide n_heads=40"),
        ({"n_heads": 48, "hidden": 6144, "n_kv_heads": 6, "tp": 8}, "tp=8 does not divide n_kv_heads=6"),
    ],
)
def test_heads_that_do_not_split_are_refused(columns: dict, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        read(**columns)
    assert read(n_kv_heads=4, tp=8)[0].layout.tp == 8  # fewer key heads than ranks are copied


@pytest.mark.parametrize(("pp", "layers", "busiest"), [(4, 42, 11), (2, 41, 21), (2, 61, 31)])
def test_stages_that_differ_are_remarked(pp: int, layers: int, busiest: int) -> None:
    row = {**ROW, "pp": str(pp), "n_layers": str(layers)}
    assert prepare(row).remarks == (
        f"pp={pp} does not divide the {layers} layers: the busiest stage is priced, of {busiest} layers",
    )
    assert prepare({**row, "n_layers": "40"}).remarks == ()
