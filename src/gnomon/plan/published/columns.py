"""The columns of a table of published results: what describes a configuration, and what was measured."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gnomon.errors import PlanError, did_you_mean

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
REQUIRED = ("id", "source", "hardware", "n_accel", "n_layers", "hidden", "n_heads", "vocab", "seq_len", "gbs")


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


def number(row: Mapping[str, Any], column: str) -> float | None:
    """Return the number in a column, None when it is blank; raise PlanError when it is not a number."""
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
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
