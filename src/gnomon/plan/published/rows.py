"""One row of a table of published results as the nouns that the planner takes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gnomon.errors import GnomonError, PlanError
from gnomon.plan.checks import check_splits
from gnomon.plan.parameters import count_parameters
from gnomon.plan.published.columns import integer, number, text
from gnomon.plan.published.hardware import cluster_of
from gnomon.plan.published.pipelines import schedule_of
from gnomon.plan.published.precisions import precision_of
from gnomon.plan.published.recomputation import recompute_of
from gnomon.plan.published.stacks import CLASSIC, FSDP, stack_of, storage_of, zero_of
from gnomon.plan.stages import whole_chunks
from gnomon.spec import ClusterSpec, Layout, ModelSpec, StackSpec, Workload

Row = Mapping[str, Any]
DEVICES = {"tpu-v7x": 2}  # in one chip
GPT3_HEADS = {768: 12, 1024: 16, 1536: 16, 2048: 24, 2560: 32, 4096: 32, 5140: 40, 12288: 96}  # by width


class Problem(NamedTuple):
    """What one row asks the planner."""

    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    workload: Workload
    stack: StackSpec


def problem_of(row: Row) -> Problem:
    """Return the problem that a row's configuration columns describe; raise PlanError with the reason when it cannot.

    Blank columns take the documented default of the row's software stack.
    """
    return read_row(row)[0]


def read_row(row: Row) -> tuple[Problem, tuple[str, ...]]:
    """Return (the problem of a row, what was taken where the row leaves it open)."""
    remarks = list[str]()
    try:
        return _problem(row, remarks), tuple(remarks)
    except PlanError:
        raise
    except GnomonError as error:
        raise PlanError(str(error)) from None


def _problem(row: Row, remarks: list[str]) -> Problem:
    _check_task(row)
    model = model_of(row, remarks)
    cluster = cluster_of(row, remarks)
    stack = storage_of(row, stack_of(row, cluster.accelerator))
    layout = layout_of(row, stack, model, cluster, remarks)
    workload = workload_of(row, layout, stack, cluster, remarks)
    compiled = stack.name == "xla"  # the compiler pads sequences that do not divide
    check_splits(
        model, layout.model_copy(update={"sequence_parallel": False, "cp": 1}) if compiled else layout, workload
    )
    return Problem(model, cluster, layout, workload, stack)


def _check_task(row: Row) -> None:
    task = text(row, "task")
    if "lora" in task:
        raise PlanError("LoRA fine-tuning is not priced: most weights get no gradient")
    served = re.search(r"\b(?:inference|serving|prefill|decod(?:e|ing)|generation)\b", task)
    if served and not re.search(r"train|tun|sft", task):
        raise PlanError(f"column task is {row['task']!r}; training steps are predicted here, see gnomon plan inference")


def needed(row: Row, column: str) -> int:
    """Return the whole number in a column; raise PlanError when it is blank."""
    value = integer(row, column)
    if value is None:
        raise PlanError(f"column {column} is blank; the prediction needs it")
    return value


def model_of(row: Row, remarks: list[str]) -> ModelSpec:
    """Return the network of a row."""
    hidden, vocab = needed(row, "hidden"), needed(row, "vocab")
    gated = bool(integer(row, "gated_mlp", 0))
    heads = integer(row, "n_heads") or usual_heads(hidden, gated)
    window = integer(row, "window") or None
    period = integer(row, "window_period") or 1
    modern = gated or bool(integer(row, "kv_lora_rank"))
    described: dict[str, Any] = {
        "name": str(row.get("model") or "unnamed"),
        "num_layers": integer(row, "n_layers") or 1,
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": _key_heads(row, heads, remarks),
        "head_dim": integer(row, "head_dim") or hidden // heads,
        "ffn_hidden_size": integer(row, "ffn_hidden") or _usual_width(hidden, gated, remarks),
        "vocab_size": vocab,
        "max_seq_len": max(integer(row, "seq_len") or 1, 1),
        "activation": "silu" if gated else "gelu",
        "gated_mlp": gated,
        "norm": "rmsnorm" if modern else "layernorm",
        "position": "rope" if modern else "learned",
        "tied_embeddings": bool(integer(row, "tied_embeddings", 0)),
        "parallel_block": "parallel" in text(row, "attn_type"),
        "sliding_window": window,
        "moe": _moe(row),
        "mla": _mla(row),
        "num_mtp_layers": integer(row, "mtp_layers", 0),
    }
    if not integer(row, "n_layers"):
        described["num_layers"] = _layers_from_parameters(row, described, remarks)
    layers = described["num_layers"]
    described["num_sliding_window_layers"] = _windowed_layers(layers, period) if window else 0
    return ModelSpec.from_mapping(described, where="model")


def _usual_width(hidden: int, gated: bool, remarks: list[str]) -> int:
    """Return the width of a feed-forward that a row is silent about: 4 h, or with a gate as many weights.

    LLaMA (arXiv 2302.13971, section 2.2) takes 2/3 of 4 h, in its code rounded up to a multiple of 256.
    """
    if not gated:
        return 4 * hidden
    width = -(-8 * hidden // 3 // 256) * 256
    remarks.append(f"ffn_hidden is blank: taken as {width}, two thirds of 4 x hidden in multiples of 256")
    return width


def usual_heads(hidden: int, gated: bool) -> int:
    """Return the attention heads of a model whose source is silent about them.

    Those of the GPT-3 of the nearest width (Brown et al., 2020, arXiv 2005.14165, table 2.1) where they divide the
    width; else, and with a gated MLP, the number that divides it into heads of nearly 128.
    """
    nearest = min(GPT3_HEADS, key=lambda width: abs(math.log(hidden / width)))
    heads = GPT3_HEADS[nearest]
    if not gated and hidden % heads == 0:
        return heads
    divisors = [n for n in range(1, min(hidden, 65536) + 1) if hidden % n == 0]
    return min(divisors, key=lambda n: abs(math.log(hidden / n / 128)))


def _key_heads(row: Row, heads: int, remarks: list[str]) -> int:
    """Return the key heads: one with multi-query attention, as many as the others when nothing is stated."""
    stated, kind = integer(row, "n_kv_heads"), text(row, "attn_type")
    if stated:
        return stated
    if re.search(r"mqa|multi-?\s?query", kind):
        return 1
    if re.search(r"gqa|group", kind):
        remarks.append("attn_type is gqa and n_kv_heads is blank: as many key heads as heads are taken")
    return heads


def _layers_from_parameters(row: Row, described: dict[str, Any], remarks: list[str]) -> int:
    """Return the number of equal layers with which a network has the stated number of parameters."""
    billions = number(row, "params_b")
    if billions is None:
        raise PlanError("columns n_layers and params_b are blank; the prediction needs one of them")
    fewest = 1 + int((described["moe"] or {}).get("num_dense_layers", 0))
    less, more = (
        count_parameters(ModelSpec.from_mapping({**described, "num_layers": fewest + extra}, where="model")).total
        for extra in (0, 1)
    )
    layers = round(fewest + (billions * 1e9 - less) / (more - less))
    if layers < fewest:
        raise PlanError(
            f"column n_layers is blank and params_b={billions:g} is too small for hidden={described['hidden_size']}"
        )
    remarks.append(f"n_layers is blank: {layers} layers have the {billions:g} billion parameters of params_b")
    return layers


def _windowed_layers(layers: int, period: int) -> int:
    """Return how many layers have the window: all but each `period`-th, or all when the period is 1."""
    return layers if period <= 1 else layers - layers // period


def _moe(row: Row) -> dict[str, Any] | None:
    experts = integer(row, "experts", 0) or 0
    if experts <= 1:
        return None
    period = integer(row, "moe_layer_period") or 1
    dense = integer(row, "n_dense_layers", 0) or 0
    # a width alone says that there is one
    shared = integer(row, "n_shared_experts") or (1 if integer(row, "shared_ffn_hidden") else 0)
    width = integer(row, "moe_ffn_hidden") or needed(row, "ffn_hidden")
    shared_width = integer(row, "shared_ffn_hidden", 0) or shared * width
    return {
        "num_experts": experts,
        "experts_per_token": needed(row, "top_k"),
        "expert_ffn_size": width,
        "num_shared_experts": shared if shared_width else 0,
        "shared_expert_ffn_size": shared_width if shared else 0,
        "num_dense_layers": dense,
        "moe_layer_period": period,
    }


def _mla(row: Row) -> dict[str, Any] | None:
    rank = integer(row, "kv_lora_rank")
    if not rank:
        return None
    return {
        "q_lora_rank": integer(row, "q_lora_rank") or None,
        "kv_lora_rank": rank,
        "qk_nope_head_dim": needed(row, "qk_nope_dim"),
        "qk_rope_head_dim": needed(row, "qk_rope_dim"),
        "v_head_dim": needed(row, "v_head_dim"),
    }


def layout_of(row: Row, stack: StackSpec, model: ModelSpec, cluster: ClusterSpec, remarks: list[str]) -> Layout:
    """Return how a row splits its model; data parallelism takes the ranks that the other ways leave."""
    ranks = needed(row, "n_accel")
    tp, pp, cp = (integer(row, name, 1) or 1 for name in ("tp", "pp", "cp"))
    ep = integer(row, "ep", 1) or 1
    expert_tp = integer(row, "etp") or _usual_expert_tp(model, tp, ep, remarks)
    inner = tp * pp * cp
    if ranks % inner:
        raise PlanError(f"tp x pp x cp = {tp} x {pp} x {cp} does not divide n_accel={ranks}")
    dp = ranks // inner
    stated = text(row, "dp").removesuffix(".0")
    if stated.isdecimal() and int(stated) != dp:
        remarks.append(f"dp={stated} is not n_accel / (tp x pp x cp) = {dp}, which is taken")
    _check_heads(row, model, tp)
    zero, shard = zero_of(row, stack, cluster, dp * cp, remarks)
    schedule, vpp = schedule_of(row, pp, integer(row, "vp_or_interleave", 1) or 1, remarks)
    vpp = vpp if pp > 1 and schedule == "1f1b" else 1
    if vpp > 1 and not whole_chunks(model.num_layers, pp * vpp):
        remarks.append(f"pp x vpp = {pp} x {vpp} chunks do not divide the {model.num_layers} layers")
    sequence_parallel = integer(row, "sp")
    divides = stack.name == "xla" or needed(row, "seq_len") % (cp * tp) == 0
    if sequence_parallel is None and stack.name not in CLASSIC and not divides:
        remarks.append(f"sp is blank and tp={tp} does not divide the sequence: no sequence parallelism is taken")
    usual = stack.name not in CLASSIC and divides
    recompute, share = recompute_of(row, stack, model, remarks)
    return Layout.from_mapping(
        {
            "dp": dp,
            "tp": tp,
            "pp": pp,
            "cp": cp,
            "ep": ep,
            "expert_tp": expert_tp,
            "vpp": vpp,
            "schedule": schedule,
            "sequence_parallel": usual if sequence_parallel is None else bool(sequence_parallel),
            "zero_stage": zero,
            "shard_ranks": shard,
            "recompute": recompute,
            "recompute_share": share,
        },
        where="layout",
    )


def _usual_expert_tp(model: ModelSpec, tp: int, ep: int, remarks: list[str]) -> int:
    """Return over how many ranks a silent row splits each expert: as the rest of the model (Megatron's default), or not
    at all where expert parallelism spreads them (the recipes of Megatron-Bridge)."""
    if model.moe is None or tp == 1:
        return 1
    if ep > 1:
        remarks.append(f"etp is blank: experts are spread by ep={ep} and not split")
        return 1
    return tp if model.moe.expert_ffn_size % tp == 0 else 1


def _check_heads(row: Row, model: ModelSpec, tp: int) -> None:
    """Raise PlanError for stated heads that tp does not divide, as `gnomon plan` does; fewer key heads are copied."""
    if integer(row, "n_heads") and model.num_heads % tp:
        raise PlanError(f"tp={tp} does not divide n_heads={model.num_heads}")
    keys = model.num_kv_heads
    if integer(row, "n_kv_heads") and model.mla is None and keys % tp and tp % keys:
        raise PlanError(f"tp={tp} does not divide n_kv_heads={keys}")


def workload_of(row: Row, layout: Layout, stack: StackSpec, cluster: ClusterSpec, remarks: list[str]) -> Workload:
    """Return what a row trains: batch, sequence, precision, attention."""
    seq_len = needed(row, "seq_len")
    stated = _stated_micro_batch(row, layout, stack, DEVICES.get(cluster.accelerator.name, 1), remarks)
    accumulation = integer(row, "grad_accum")
    batch = integer(row, "gbs")
    if batch is None and stated:
        # silent about accumulation: one micro-batch per rank and step, as many as stages in a pipeline
        batch = stated * (accumulation or layout.pp) * layout.dp
    if batch is None:
        raise PlanError("columns gbs and mbs are blank; the prediction needs one of them")
    per_rank = batch / layout.dp
    if per_rank < 1 and stack.name != "xla":  # a compiler may split a sequence
        raise PlanError(f"gbs={batch} gives dp={layout.dp} ranks less than one sequence each")
    most = max(1, int(per_rank))
    micro_batch = stated or _usual_micro_batch(per_rank, layout.pp, accumulation, stack)
    if micro_batch > most:
        remarks.append(f"mbs={micro_batch} is more than a rank's batch of {per_rank:g}: taken as {most}")
        micro_batch = most
    steps = max(1, math.ceil(per_rank / micro_batch - 1e-9))
    if accumulation and integer(row, "gbs") and micro_batch == integer(row, "mbs") and steps != accumulation:
        remarks.append(
            f"grad_accum={accumulation} is not gbs / (mbs x dp) = {batch} / ({micro_batch} x {layout.dp}): not used"
        )
    flash = integer(row, "flash_attention")
    return Workload.from_mapping(
        {
            "seq_len": seq_len,
            "global_batch": micro_batch * layout.dp * steps,
            "micro_batch": micro_batch,
            "precision": precision_of(row, cluster.accelerator),
            "stack": stack.name,
            "attention_kernel": None if flash is None else "flash" if flash else "unfused",
            "dropout": stack.name in CLASSIC and not bool(integer(row, "gated_mlp", 0)),
        },
        where="workload",
    )


def _stated_micro_batch(row: Row, layout: Layout, stack: StackSpec, devices: int, remarks: list[str]) -> int | None:
    """Return the sequences of one pass of the ranks that share a model, None when the row is silent.

    MaxText states the batch of a chip, which may be a part of a sequence: its chips take one pass together. Under a
    pipeline torchtitan states that of a whole step, which its schedule cuts into a micro-batch for each stage.
    """
    if stack.name in FSDP and layout.pp > 1:
        whole, steps = integer(row, "mbs") or 0, integer(row, "grad_accum") or 1
        if steps == 1 and whole and integer(row, "gbs") == whole * layout.dp and whole % layout.pp == 0:
            remarks.append(
                f"mbs={whole} is a rank's whole batch: cut into {layout.pp} micro-batches, one for each stage"
            )
            return whole // layout.pp
    per_chip = number(row, "mbs") if stack.name == "xla" else None
    if not per_chip:
        return integer(row, "mbs")
    batch, steps = integer(row, "gbs"), integer(row, "grad_accum") or 1
    for each in (1, devices):  # the batch may be that of each of the devices that frameworks see in a chip
        together = each * per_chip * layout.tp * layout.cp * layout.pp
        if together == int(together) and batch in (None, round(together * layout.dp * steps)):
            return int(together)
    return integer(row, "mbs")


def _usual_micro_batch(per_rank: float, pp: int, accumulation: int | None, stack: StackSpec) -> int:
    """Return what a silent row takes: a rank's batch over the stated accumulation, all of it where a program is
    compiled for it (XLA), a micro-batch for each stage where FSDP has a pipeline (torchtitan), else the largest of 4, 2
    and 1 that divides it and leaves six micro-batches a stage (those of Megatron-LM's examples/sc21/run_table_1.sh)."""
    if accumulation and per_rank % accumulation == 0:
        return int(per_rank / accumulation)
    if stack.name == "xla" and pp == 1:
        return max(1, int(per_rank))
    if stack.name in FSDP and pp > 1:
        return next((size for size in range(int(per_rank / pp), 1, -1) if per_rank % size == 0), 1)
    enough = 1 if pp == 1 else 6 * pp
    return next((size for size in (4, 2) if per_rank % size == 0 and per_rank / size >= enough), 1)
