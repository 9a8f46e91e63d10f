"""The columns of a table of published results: what describes a configuration, and what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gnomon.errors import PlanError, did_you_mean, nearest

OUTCOMES = (
    "step_time_s",
    "tokens_per_s_per_accel",
    "tflops_per_accel",
    "mfu_pct",
    "hfu_pct",
    "mem_gb_per_accel",
)
NEVER_READ = (*OUTCOMES, "notes")
SILENT = r"n/?a|unknown|[-–—?]+|(?:not|un)[ -]?(?:stated|specified|reported|known|given|applicable)|silent|default"
FLAGS = ("gated_mlp", "sp", "tied_embeddings", "flash_attention")
YES, NO = ("yes", "true", "on", "y", "1", "1.0"), ("no", "false", "off", "none", "n", "0", "0.0")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "sixteen": 16}
REQUIRED = ("id", "source", "hardware", "n_accel", "n_layers", "hidden", "n_heads", "vocab", "seq_len", "gbs")
KNOWN = (
    *NEVER_READ, *REQUIRED,
    "model", "params_b", "ffn_hidden", "n_kv_heads", "head_dim", "gated_mlp", "attn_type", "tied_embeddings", "window",
    "window_period", "mtp_layers", "q_lora_rank", "kv_lora_rank", "qk_nope_dim", "qk_rope_dim", "v_head_dim", "experts",
    "top_k", "moe_ffn_hidden", "n_shared_experts", "shared_ffn_hidden", "n_dense_layers", "moe_layer_period",
    "accel_per_node", "interconnect_note", "dp", "tp", "sp", "pp", "vp_or_interleave", "pp_schedule", "cp", "ep", "etp",
    "zero_stage_or_fsdp", "mbs", "grad_accum", "precision", "recompute", "flash_attention", "grad_accum_dtype",
    "overlap_notes", "task", "year", "flop_convention", "peak_tflops_used", "mem_kind", "grade", "config_group",
)  # fmt: skip


def is_outcome(column: str) -> bool:
    """Return whether a column holds a result, or something derived from one, that a prediction may not see."""
    return column in NEVER_READ or column.startswith(("derived_", "chk_"))


def configuration(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row without its outcomes."""
    return {column: value for column, value in row.items() if not is_outcome(column)}


def check_columns(columns: list[str]) -> None:
    """Raise PlanError when the table lacks a column that every configuration needs."""
    missing = [column for column in REQUIRED if column not in columns]
    if missing:
        raise PlanError(
            f"The table has no column {', '.join(repr(m) for m in missing)}. {did_you_mean(missing[0], columns)} "
            f"A table of published results needs at least {', '.join(REQUIRED)}."
        )


def misspelt(columns: Iterable[str]) -> list[str]:
    """Return a note on each column that is not read and whose name is nearly that of one that the table lacks."""
    columns = list(columns)
    near = {c: nearest(c.strip().lower(), KNOWN) for c in columns if c not in KNOWN and not is_outcome(c)}
    return [
        f"note: column {column!r} is not read. Did you mean '{meant}'?"
        for column, meant in near.items()
        if meant is not None and meant not in columns
    ]


def number(row: Mapping[str, Any], column: str) -> float | None:
    """Return the number in a column, None when it is blank or says that the source is silent; raise PlanError when it
    is not a number."""
    value = row.get(column)
    if value is None or not str(value).strip() or re.fullmatch(SILENT, text(row, column)):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise PlanError(f"column {column} is {value!r}; a number is needed")
    return found


def integer(row: Mapping[str, Any], column: str, default: int | None = None) -> int | None:
    """Return the integer in a column, `default` when it is blank; raise PlanError when it is not a whole number."""
    value = number(row, column)
    if value is None:
        return default
    if value != int(value):
        raise PlanError(f"column {column} is {value:g}; a whole number is needed")
    return int(value)


def text(row: Mapping[str, Any], column: str) -> str:
    """Return the text in a column in lower case, empty when it is blank."""
    value = row.get(column)
    return "" if value is None else str(value).strip().lower()


def statement(row: Mapping[str, Any], column: str) -> str:
    """Return the text in a column in lower case, empty too where it only says that the source is silent."""
    found = text(row, column)
    return "" if re.fullmatch(SILENT, found) else found


def with_digits(words: str) -> str:
    """Return a text in which numbers up to sixteen that are written out are in digits."""
    return re.sub(rf"\b(?:{'|'.join(NUMBERS)})\b", lambda found: str(NUMBERS[found[0].lower()]), words, flags=re.I)


def flag(row: Mapping[str, Any], column: str, default: bool | None = None) -> bool | None:
    """Return whether a column says yes, `default` when it is blank; raise PlanError for what is neither yes nor no.

    A number from one on is a degree (of sequence parallelism) or a version (of FlashAttention), and says yes.
    """
    stated = statement(row, column)
    if stated in (*YES, *NO, ""):
        return stated in YES if stated else default
    if re.fullmatch(r"[1-9]\d*(?:\.\d+)?", stated):
        return True
    raise PlanError(f"column {column} is {row[column]!r}; write yes or no (or true/false, on/off, y/n, 1/0)")


def with_plain_flags(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with 1, 0 or nothing in its yes/no columns; raise PlanError for what is neither yes nor no."""
    stated = {column: flag(row, column) for column in FLAGS if column in row}
    return {**row, **{column: None if found is None else str(int(found)) for column, found in stated.items()}}
