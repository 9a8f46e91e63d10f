"""What a row measured, as the time of one step of the batch that was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gnomon.errors import PlanError
from gnomon.plan.published.columns import number, text
from gnomon.plan.published.conventions import Convention, convention_of
from gnomon.plan.published.predict import Prediction

Row = Mapping[str, Any]
LEAST, MOST = 1e-12, 1e15  # beyond is a slip of the pen


class Target(NamedTuple):
    """`step_time_s` and the column that it comes from, or None and the reason why nothing can be compared."""

    step_time_s: float | None
    basis: str


def target_of(row: Row, prediction: Prediction) -> Target:
    """Return what was measured: a stated or derived step time, else a rate of tokens, else of FLOPs.

    FLOPs are counted as the source counts them (`flop_convention`, else `chk_method`); a source whose counting is not
    known is not compared. Raises PlanError when an outcome is not a number.
    """
    for column in ("step_time_s", "derived_step_time_s"):
        value = _positive(row, column)
        if value is not None:
            return Target(value, column)
    if prediction.refused is not None or prediction.token_flops is None:
        return Target(None, "the configuration was refused")
    rate = _positive(row, "tokens_per_s_per_accel")
    if rate is not None:
        return Target(prediction.tokens / (rate * prediction.ranks), "tokens_per_s_per_accel")
    return _from_flops(row, prediction)


def measured_memory(row: Row) -> float | None:
    """Return the stated memory in the unit of its kind, None when the source is silent."""
    return _positive(row, "mem_gb_per_accel")


def _from_flops(row: Row, prediction: Prediction) -> Target:
    stated = {column: _positive(row, column) for column in ("tflops_per_accel", "mfu_pct", "hfu_pct")}
    if not any(stated.values()):
        return Target(None, "nothing was measured")
    convention = convention_of(text(row, "flop_convention")) or convention_of(text(row, "chk_method"))
    if convention is None:
        return Target(None, "how the source counts FLOPs is not known")
    assert prediction.token_flops is not None
    column, value = next((column, value) for column, value in stated.items() if value is not None)
    per_second = value * 1e12 if column == "tflops_per_accel" else value / 100.0 * prediction.peak_flops
    flops = float(prediction.token_flops.count(convention, _counts_recompute(column, convention, prediction)))
    return Target(flops * prediction.tokens / (per_second * prediction.ranks), column)


def _counts_recompute(column: str, convention: Convention, prediction: Prediction) -> bool:
    """Return whether the figure counts recomputation: an HFU what was computed again, an MFU never."""
    if column == "tflops_per_accel":
        return convention.recompute
    return column == "hfu_pct" and (convention.recompute or prediction.recompute)


def _positive(row: Row, column: str) -> float | None:
    value = number(row, column)
    if value is not None and value <= 0:
        raise PlanError(f"column {column} is {value:g}; a measured value is greater than 0")
    if value is not None and not LEAST <= value <= MOST:
        raise PlanError(f"column {column} is {value:g}; a measured value lies between {LEAST:g} and {MOST:g}")
    return value
