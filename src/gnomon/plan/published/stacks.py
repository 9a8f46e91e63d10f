"""Which software stack a row ran, and what its silent columns mean there.

| stack | rows | recompute when silent | sharding when silent | overlap |
|---|---|---|---|---|
| megatron | Megatron-LM and Megatron-DeepSpeed before fused attention (to 2022) | full | none | none |
| megatron-core | Megatron-Core, NeMo, Megatron-Bridge and other GPU code since 2023 | none | optimizer (ZeRO-1) | yes |
| fsdp | PyTorch FSDP and DeepSpeed ZeRO-3 without tensor or pipeline parallelism | full | all (ZeRO-3) | yes |
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


def stack_of(row: Row) -> StackSpec:
    """Return the software family that the columns name."""
    words = " ".join(text(row, c) for c in ("source", "source_url_or_repo_path", "zero_stage_or_fsdp", "overlap_notes"))
    sharding = text(row, "zero_stage_or_fsdp")
    if "tpu" in text(row, "hardware") or "maxtext" in words:
        return load_stack("xla")
    split = (integer(row, "tp") or 1) * (integer(row, "pp") or 1) > 1
    fully = "fsdp" in sharding and "fsdp=0" not in sharding or "hsdp" in sharding or "zero-3" in sharding
    core = any(name in words for name in ("megatron-bridge", "nemo", "megatron-core"))
    if fully and not split and not core:
        return load_stack("fsdp")
    if any(name in words for name in ("torchtitan", "fsdp.py", "foundry", "fms")):
        return load_stack("fsdp")
    year = integer(row, "year") or CLASSIC_UNTIL + 1
    unfused = integer(row, "flash_attention") == 0
    classic = unfused or year <= CLASSIC_UNTIL or "deepspeed" in words or "bloom" in words
    return load_stack("megatron" if classic else "megatron-core")


def storage_of(row: Row, stack: StackSpec) -> StackSpec:
    """Return the stack with the precision of gradients that the label states."""
    label = text(row, "precision")
    if "pure" in label:
        return stack.model_copy(update={"gradient_bytes": 2})
    if "default" in label or ("bf16" in label and stack.name == "megatron"):
        return stack.model_copy(update={"gradient_bytes": 4})
    return stack


def recompute_of(row: Row, stack: StackSpec) -> Literal["none", "selective", "full"]:
    """Return what the column says, or the family's default when it is blank."""
    stated = text(row, "recompute")
    if not stated:
        return "none" if stack.name == "megatron-core" else "full"
    if stated.startswith(("none", "no", "false", "0")):
        return "none"
    return "selective" if "selective" in stated or "sac" in stated else "full"


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
    if "hsdp" in stated:
        return 3, _divisor(replicas, integer(row, "accel_per_node") or 8)
    if "fsdp" in stated or "shard" in stated:
        group = re.search(r"fsdp\s*(\d+)|(\d+)-way", stated)
        return 3, _divisor(replicas, int(group.group(1) or group.group(2))) if group else None
    return {"megatron": 0, "megatron-core": 1}.get(stack.name, 3), None


def _divisor(replicas: int, wanted: int) -> int | None:
    return wanted if replicas % wanted == 0 else None
