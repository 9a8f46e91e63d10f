"""Which software stack a row ran, and what its silent columns mean there.

| stack | rows | recompute when silent | sharding when silent | overlap |
|---|---|---|---|---|
| megatron | Megatron-LM before fused attention (to 2022) | full | none | none |
| megatron-deepspeed | Megatron-DeepSpeed | full | none | none |
| megatron-core | Megatron-Core, NeMo, Megatron-Bridge and other GPU code since 2023 | none | optimizer (ZeRO-1) | yes |
| fsdp | PyTorch FSDP without tensor or pipeline parallelism | full | all (ZeRO-3) | yes |
| fsdp-compiled | the same compiled: fms-fsdp, torchtitan in FP8, rows that say so | full | all (ZeRO-3) | yes |
| deepspeed | DeepSpeed ZeRO-3 | full | all (ZeRO-3) | little |
| xla | TPUs, MaxText | full | all (ZeRO-3) | yes |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from gnomon.plan.published.columns import integer, text
from gnomon.spec import StackSpec
from gnomon.spec.catalog import load_stack

Row = Mapping[str, Any]
CLASSIC_UNTIL = 2022
CORE = ("megatron-bridge", "nemo", "megatron-core", "megatron-lm", "dgxc")
COMPILED = ("fms-fsdp", "compile")  # fms-fsdp compiles by default


def stack_of(row: Row) -> StackSpec:
    """Return the software family that the columns name."""
    words = " ".join(text(row, c) for c in ("source", "source_url_or_repo_path", "zero_stage_or_fsdp", "overlap_notes"))
    if "tpu" in text(row, "hardware") or "maxtext" in words:
        return load_stack("xla")
    words = f"{words} {text(row, 'precision')}"
    if any(name in words for name in COMPILED) or ("torchtitan" in words and "fp8" in words):
        return load_stack("fsdp-compiled")
    sharding = text(row, "zero_stage_or_fsdp")
    split = (integer(row, "tp") or 1) * (integer(row, "pp") or 1) > 1
    fully = "fsdp" in sharding and "fsdp=0" not in sharding
    if "zero-3" in sharding or ("zero-3" in words and not split):
        return load_stack("deepspeed")
    if (fully or "hsdp" in sharding) and not split and not any(name in words for name in CORE):
        return load_stack("fsdp")
    year = integer(row, "year") or CLASSIC_UNTIL + 1
    unfused = integer(row, "flash_attention") == 0
    classic = unfused or year <= CLASSIC_UNTIL
    deepspeed = "deepspeed" in f"{words} {text(row, 'pp_schedule')}"
    return load_stack("megatron-deepspeed" if deepspeed else "megatron" if classic else "megatron-core")


def storage_of(row: Row, stack: StackSpec) -> StackSpec:
    """Return the stack with the precision of gradients and the overlap that the row states."""
    notes = text(row, "overlap_notes")
    if any(words in notes for words in ("not overlapped", "overlap off", "no overlap", "without overlap")):
        overlaps = ("overlap_tensor", "overlap_data", "overlap_shard", "overlap_context", "overlap_expert")
        stack = stack.model_copy(update=dict.fromkeys(overlaps, 0.0))
    elif "overlap_grad_reduce false" in notes:
        stack = stack.model_copy(update={"overlap_data": 0.0})
    stated = text(row, "grad_accum_dtype") or text(row, "precision")
    if "fp32" in stated or "default" in stated:
        return stack.model_copy(update={"gradient_bytes": 4})
    if "pure" in stated or text(row, "grad_accum_dtype") in ("bf16", "fp16"):
        return stack.model_copy(update={"gradient_bytes": 2})
    return stack


def recompute_of(row: Row, stack: StackSpec) -> tuple[Literal["none", "selective", "full"], float]:
    """Return (what is recomputed, share of the layers), from the column or the family's default when it is blank.

    Under FSDP "selective" means that some layers, or about every other product, are recomputed: half of them.
    """
    stated = text(row, "recompute")
    if not stated:
        return ("none" if stack.name == "megatron-core" else "full"), 1.0
    if stated.startswith(("none", "no", "false", "0")):
        return "none", 1.0
    if "selective" not in stated and "sac" not in stated:
        return "full", 1.0
    return ("full", 0.5) if stack.name.startswith("fsdp") else ("selective", 1.0)


def zero_of(row: Row, stack: StackSpec, replicas: int) -> tuple[Any, int | None]:
    """Return (stage, ranks of one sharding group) from the column, or the family's default when it is blank."""
    stated = text(row, "zero_stage_or_fsdp")
    stage = re.search(r"zero[- ]?(\d)", stated)
    if stage:
        return int(stage.group(1)), None
    if stated in ("none", "0", "ddp"):
        return 0, None
    if "fsdp=0" in stated:
        return 1, None
    if (integer(row, "pp") or 1) > 1 and any(word in stated for word in ("fsdp", "shard", "hsdp")):
        # between stages the weights stay gathered until the last micro-batch (torchtitan; Llama 3, arXiv 2407.21783)
        return 1, None
    if "hsdp" in stated:
        return 3, _divisor(replicas, integer(row, "accel_per_node") or 8)
    if any(word in stated for word in ("fsdp", "shard", "gemini")):
        group = re.search(r"fsdp\s*(\d+)|(\d+)-way", stated)
        return 3, _divisor(replicas, int(group.group(1) or group.group(2))) if group else None
    return {"megatron": 0, "megatron-deepspeed": 0, "megatron-core": 1}.get(stack.name, 3), None


def _divisor(replicas: int, wanted: int) -> int | None:
    return wanted if replicas % wanted == 0 else None
