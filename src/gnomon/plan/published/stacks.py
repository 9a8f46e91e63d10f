"""Which software stack a row ran, and what its silent columns mean there.

| stack | rows | recompute when silent | sharding when silent | overlap |
|---|---|---|---|---|
| megatron | Megatron-LM before fused attention (2022; 2023 where optional) | full; 2023: selective | none | if pp=1 |
| megatron-deepspeed | Megatron-DeepSpeed | full | none | none |
| bigscience | BigScience's fork of it: each launch waits for its kernel | full | none | none |
| megatron-core | Megatron-Core, NeMo, Megatron-Bridge and other GPU code since | none | optimizer (ZeRO-1) | yes |
| fsdp | PyTorch FSDP, with tensor and pipeline parallelism too (torchtitan) | full | all (ZeRO-3) | yes |
| fsdp-compiled | the same compiled: fms-fsdp, torchtitan in FP8, rows that say so | full | all (ZeRO-3) | yes |
| deepspeed | DeepSpeed ZeRO-3 | full | all (ZeRO-3) | yes |
| deepspeed-2021 | the same before 2022, which gathered parameter by parameter | full | all (ZeRO-3) | little |
| xla | TPUs, MaxText | full | all (ZeRO-3) | yes |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gnomon.plan.published.columns import integer, statement, text
from gnomon.plan.published.priors import prior_of
from gnomon.plan.published.sharding import read_sharding
from gnomon.spec import AcceleratorSpec, ClusterSpec, StackSpec
from gnomon.spec.catalog import load_stack

Row = Mapping[str, Any]
CLASSIC_UNTIL = 2022
FUSED_BY_DEFAULT = ("nemo", "megatron-core", "megatron-bridge", "transformer engine", "transformer-engine")
OPTIONAL_UNTIL = 2023  # --use-flash-attn of Megatron-LM was an option until Transformer Engine became its default
XLA_ON_GPU = ("maxtext", "paxml", "praxis", "pax ml")
EARLY_STOPS_SINCE = 2024  # PyTorch 2.1 came in October 2023
GATHERS_TOGETHER_SINCE = 2022  # DeepSpeed gathered ZeRO-3's parameters one by one (its pull request 1453, January 2022)
ASYNC_TENSOR = r"async\w*[ -]?(?:tp|tensor)"  # torchtitan's enable_async_tensor_parallel, off by default
FSDP = ("fsdp", "fsdp-compiled")
CLASSIC = ("megatron", "megatron-deepspeed", "bigscience")  # families with the layers of Megatron-LM before 2023
CORE = ("megatron-bridge", "nemo", "megatron-core", "megatron-lm", "dgxc")
COMPILED = ("fms-fsdp", "compile")  # fms-fsdp compiles by default
NO_OVERLAP = (
    r"(?:\bnot|\bno|\bnever|n['’]t|\bwithout|\bw/o|\bnon|\bdisabl(?:e|ed|ing))[ -]"
    r"(?:(?!but\b|with\b|and\b|thanks\b|due\b)[\w/&]+[ -]){0,3}overlap"
    r"|overlap\w*\s*[:=]?\s*"
    r"(?:(?:of|for) (?:(?!with\b|but\b|and\b|no\b)[\w-]+ ){1,4})?"
    r"(?:is |are |was )?(?:turned |switched )?(?:off|disabled|none|false|no|0(?![.\d]))\b"
)
NEGATED = r"\b(?:not?|non|without|w/o|un\w+|disabled?|off|false|none|n/?a)\b|[=:]\s*0(?![.\d])"  # of a clause
# of sends between stages, which no constant hides
PIPELINE = r"p2p(?:\W+\w+){0,2}\W+overlap|(?:\bpp|pipeline)\W*overlap|overlap\w*?[ _](?:of )?(?:p2p|pp\b|pipeline)"
OVERLAPS = {
    "overlap_tensor": r"\btp\b|tensor|\btp_",
    "overlap_data": r"\bd?dp\b|data|grad|all-?reduce",
    "overlap_shard": r"fsdp|shard|param|gather",
    "overlap_context": r"\bcp\b|context",
    "overlap_expert": r"\bep\b|expert|moe|a2a|all-?to-?all",
}

# what hides the experts' all-to-all behind the other pass of another micro-batch, off by default (Megatron-Core)
EXPERTS = r"(?:moe|ep|experts?|a2a|all-?to-?all)"
HIDDEN_EXPERTS = (
    rf"\b(?:1f1b|{EXPERTS}(?:[ _-](?:a2a|all-?to-?all|comm\w*|parallel))*)[ _-]overlap|overlap_moe"
    rf"|overlap(?:s|ped|ping)?(?: of| the)*[ _-]{EXPERTS}\b"
)


def stack_of(row: Row, accelerator: AcceleratorSpec) -> StackSpec:
    """Return the software family that the columns name."""
    words = " ".join(text(row, c) for c in ("source", "source_url_or_repo_path", "zero_stage_or_fsdp", "overlap_notes"))
    if accelerator.kind == "tpu" or any(name in words for name in XLA_ON_GPU):
        return load_stack("xla")
    words = f"{words} {text(row, 'precision')}"
    if any(name in words for name in COMPILED) or ("torchtitan" in words and "fp8" in words):
        return load_stack("fsdp-compiled")
    sharding = read_sharding(statement(row, "zero_stage_or_fsdp"))
    split = (integer(row, "tp") or 1) * (integer(row, "pp") or 1) > 1
    core = any(name in words for name in CORE)
    year = integer(row, "year") or OPTIONAL_UNTIL + 1
    zero = "deepspeed" if year >= GATHERS_TOGETHER_SINCE else "deepspeed-2021"
    if sharding.family == "zero" and sharding.stage == 3:
        return load_stack(zero)
    if sharding.family != "fsdp" and re.search(r"zero[ _-]*(?:stage)?[ _-]*3", words) and not split:
        return load_stack(zero)
    if not core and (sharding.family == "fsdp" or "torchtitan" in words):
        return load_stack("fsdp")
    flash = integer(row, "flash_attention")
    fused = any(name in words for name in FUSED_BY_DEFAULT) or bool(re.search(r"flash|fp8|fp4|float8", words))
    optional = flash is None and year <= OPTIONAL_UNTIL and not fused and (split or "megatron" in words)
    classic = flash == 0 or year <= CLASSIC_UNTIL or optional
    if "bigscience" in words and classic:
        return load_stack("bigscience")
    deepspeed = "deepspeed" in f"{words} {text(row, 'pp_schedule')}"
    if deepspeed and not split and sharding.stage in (1, 2) and "megatron" not in words:
        return load_stack(zero)
    return load_stack("megatron-deepspeed" if deepspeed else "megatron" if classic else "megatron-core")


def storage_of(row: Row, stack: StackSpec) -> StackSpec:
    """Return the stack with what the row states: precision of gradients, overlap, and whether launches run ahead."""
    notes = text(row, "overlap_notes")
    if stack.name == "fsdp" and (integer(row, "year") or EARLY_STOPS_SINCE) < EARLY_STOPS_SINCE:
        stack = stack.model_copy(update={"stops_early": False})
    if stack.name in FSDP and _says(notes, ASYNC_TENSOR):
        stack = stack.model_copy(update={"overlap_tensor": prior_of("overlap_tensor", stack.name)})
    if _says(notes, HIDDEN_EXPERTS):
        stack = stack.model_copy(update={"overlap_expert": prior_of("overlap_data", stack.name)})
    stack = stack.model_copy(update=dict.fromkeys(_not_overlapped(notes), 0.0))
    stack = stack.model_copy(update={"asynchronous": _launches_ahead(notes, stack.asynchronous)})
    stated = text(row, "grad_accum_dtype") or text(row, "precision")
    if re.search(r"fp32|float32|default", stated):
        return stack.model_copy(update={"gradient_bytes": 4})
    if "pure" in stated or text(row, "grad_accum_dtype") in ("bf16", "fp16", "bfloat16", "float16"):
        return stack.model_copy(update={"gradient_bytes": 2})
    return stack


def _says(notes: str, words: str) -> bool:
    """Return whether some clause has the words and does not negate them."""
    clauses = re.split(r"[;,()\n]", notes)
    return any(re.search(words, clause) and not re.search(NEGATED, clause) for clause in clauses)


def _launches_ahead(notes: str, usual: bool) -> bool:
    """Return whether the host runs ahead of the device: as a note says, else as usual."""
    if re.search(r"asynchronous launch|launch[_ ]blocking\s*[=:]?\s*0", notes):
        return True
    return usual and not re.search(r"launch[_ ]blocking|synchronous launch", notes)


def _not_overlapped(notes: str) -> list[str]:
    """Return the overlaps that a note switches off: those that it names, else all of them."""
    found = list[str]()
    for part in re.split(r"[;,\n]", notes):
        if re.search(NO_OVERLAP, part):
            named = [field for field, words in OVERLAPS.items() if re.search(words, part)]
            found += named or (() if re.search(PIPELINE, part) else OVERLAPS)
    return found


def zero_of(
    row: Row, stack: StackSpec, cluster: ClusterSpec, replicas: int, remarks: list[str]
) -> tuple[Any, int | None]:
    """Return (stage, ranks of one sharding group) from the column, or the family's default when it is silent.

    `replicas` are the ranks that have the same part of the model, dp x cp. Slices of TPUs are replicas of each other
    (MaxText) unless the row says otherwise.
    """
    words = statement(row, "zero_stage_or_fsdp")
    stated = read_sharding(words)
    if _says(words, r"off-?load"):
        remarks.append("zero_stage_or_fsdp states an offload to the host, which is not priced: as without it")
    usual = 0 if stack.name in CLASSIC else {"megatron-core": 1}.get(stack.name, 3)
    tp, cp = integer(row, "tp") or 1, integer(row, "cp") or 1
    slices = cluster.accelerator.kind == "tpu" and len(cluster.tiers) > 1
    in_slice = max(1, cluster.tiers[0].span // tp) if slices else None
    if stated.stage is None:
        if not stated.known:
            remarks.append(f"zero_stage_or_fsdp {words!r} names no known sharding: stage {usual} of {stack.name} taken")
        return usual, in_slice if usual == 3 and in_slice and replicas % in_slice == 0 else None
    if stated.family != "zero" and (integer(row, "pp") or 1) > 1:
        # between stages the weights stay gathered until the last micro-batch (torchtitan; Llama 3, arXiv 2407.21783)
        return min(stated.stage, 1), None
    wanted = (stated.group or 0) * (cp if stated.of_data else 1) or (in_slice or 0)
    if stated.in_node:
        wanted = min(replicas, max(1, cluster.accelerators_per_node // tp))
        if re.search(r"\d\s*[x×]\s*\d", text(row, "zero_stage_or_fsdp")):
            remarks.append(f"zero_stage_or_fsdp has two numbers without names: sharded over the {wanted} of a node")
    if stated.stage == 0 or not wanted:
        return stated.stage, None
    if replicas % wanted:
        remarks.append(f"groups of {wanted} ranks that shard do not divide dp x cp = {replicas}: sharded over all")
        return stated.stage, None
    return stated.stage, wanted
