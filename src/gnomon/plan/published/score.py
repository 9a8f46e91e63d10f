"""How well the predictions of a table agree with what was measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.errors import PlanError
from gnomon.plan.arrays import Array
from gnomon.plan.published.columns import text
from gnomon.plan.published.predict import Prediction, Predictor
from gnomon.plan.published.targets import measured_memory, target_of

Row = Mapping[str, Any]
GROUPINGS = ("source", "hardware", "grade")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One row: what was predicted, what was measured, and what the sums are taken over."""

    id: str
    source: str
    hardware: str
    grade: str
    group: str
    prediction: Prediction
    measured_s: float | None
    basis: str
    measured_memory_gb: float | None

    @property
    def error(self) -> float | None:
        """Predicted over measured step time, less one; None when refused or when nothing was measured."""
        if self.prediction.refused is not None or self.measured_s is None:
            return None
        return self.prediction.step_time_s / self.measured_s - 1.0

    @property
    def memory_error(self) -> float | None:
        """Predicted over measured memory, less one."""
        if self.prediction.refused is not None or self.measured_memory_gb is None:
            return None
        return self.prediction.memory_gb_per_accel / self.measured_memory_gb - 1.0

    def to_mapping(self) -> dict[str, Any]:
        """Return the row of the JSON document."""
        found = self.prediction
        predicted = None
        if found.refused is None:
            predicted = {
                "step_time_s": found.step_time_s,
                "tokens_per_s_per_accel": found.tokens_per_s_per_accel,
                "mfu_pct": found.mfu_pct,
                "memory_gb_per_accel": found.memory_gb_per_accel,
            }
        return {"id": self.id, "predicted": predicted, "error": self.error, "refused": found.refused}


def score(blocks: Iterable[Sequence[Row]]) -> list[Scored]:
    """Return every row of a table predicted and compared, in order."""
    predictor, results = Predictor(), list[Scored]()
    for block in blocks:
        first = len(results) + 1
        for place, (row, prediction) in enumerate(zip(block, predictor(block), strict=True), start=first):
            results.append(_score(row, place, prediction))
    return results


def _score(row: Row, place: int, prediction: Prediction) -> Scored:
    name = str(row.get("id") or f"row {place}")
    if not row.get("id"):
        prediction = Prediction(refused="column id is blank; every row needs a name")
    try:
        measured, basis = target_of(row, prediction)
        memory = measured_memory(row)
    except PlanError as error:
        # what was measured cannot be read; the prediction stands
        measured, basis, memory = None, str(error), None
    return Scored(
        id=name,
        source=str(row.get("source") or "not stated"),
        hardware=str(row.get("hardware") or "not stated"),
        grade=text(row, "grade").upper() or "not graded",
        group=str(row.get("config_group") or name),
        prediction=prediction,
        measured_s=measured,
        basis=basis,
        measured_memory_gb=memory,
    )


def summarize(rows: Sequence[Scored]) -> dict[str, Any]:
    """Return the errors of all rows and of each source, hardware and grade, and what was refused and why."""
    refused = Counter(row.prediction.refused for row in rows if row.prediction.refused is not None)
    compared = [row for row in rows if row.error is not None]
    silent = Counter(row.basis for row in rows if row.error is None and row.prediction.refused is None)
    remarks: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for remark in row.prediction.remarks:
            remarks[remark].append(row.id)
    return {
        "rows": len(rows),
        "predicted": len(rows) - refused.total(),
        **errors_of(rows),
        "memory": memory_errors_of(rows),
        "by": {name: _grouped(rows, name) for name in GROUPINGS},
        "basis": dict(Counter(row.basis for row in compared).most_common()),
        "not_compared": dict(silent.most_common()),
        "refused": dict(refused.most_common()),
        "remarks": dict(remarks),
    }


def _grouped(rows: Sequence[Scored], name: str) -> dict[str, Any]:
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[getattr(row, name)].append(row)
    return {
        key: {
            "rows": len(members),
            "refused": sum(row.prediction.refused is not None for row in members),
            **errors_of(members),
            "memory": memory_errors_of(members),
        }
        for key, members in sorted(groups.items())
    }


def errors_of(rows: Sequence[Scored]) -> dict[str, Any]:
    """Return the statistics of the step times' errors; rows of one `config_group` count as one together.

    `spearman` correlates predicted and measured step times by rank, `spearman_tokens_per_s` the throughputs of one
    accelerator, in which neither the batch nor the number of accelerators can help.
    """
    found = [row for row in rows if row.error is not None and row.measured_s is not None]
    weights = _weights(found)
    predicted = np.asarray([row.prediction.step_time_s for row in found])
    measured = np.asarray([row.measured_s for row in found], dtype=np.float64)
    work = np.asarray([row.prediction.tokens / row.prediction.ranks for row in found])
    return {
        **statistics(np.asarray([row.error for row in found], dtype=np.float64), weights),
        "spearman": spearman(predicted, measured, weights),
        "spearman_tokens_per_s": spearman(work / predicted, work / measured, weights),
    }


def memory_errors_of(rows: Sequence[Scored]) -> dict[str, Any]:
    """Return the statistics of the errors in memory."""
    found = [row for row in rows if row.memory_error is not None]
    return statistics(np.asarray([row.memory_error for row in found], dtype=np.float64), _weights(found))


def statistics(errors: Array, weights: Array) -> dict[str, Any]:
    """Return n, weighted median, mean and 90th percentile of the absolute errors, and the weighted mean (bias)."""
    if not errors.size:
        return {"n": 0, "median": None, "mean": None, "p90": None, "bias": None}
    size = np.abs(errors)
    return {
        "n": int(errors.size),
        "median": median(size, weights),
        "mean": float(np.average(size, weights=weights)),
        "p90": quantile(size, weights, 0.9),
        "bias": float(np.average(errors, weights=weights)),
    }


def median(values: Array, weights: Array) -> float:
    """Return the weighted median: the mean of the two middle values where exactly half of the weight lies below."""
    below = quantile(values, weights, 0.5)
    split = bool(np.isclose(weights[values <= below].sum(), weights.sum() / 2.0, rtol=1e-12, atol=0.0))
    return (below + float(values[values > below].min())) / 2.0 if split else below


def quantile(values: Array, weights: Array, share: float) -> float:
    """Return the smallest value that together with all smaller ones has `share` of the weight."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    index = int(np.searchsorted(reached, share * reached[-1] * (1.0 - 1e-12)))
    return float(values[order][min(index, values.size - 1)])


def spearman(first: Array, second: Array, weights: Array) -> float | None:
    """Return the weighted correlation of the ranks, equal values sharing a rank; None below three rows."""
    if first.size < 3:
        return None
    a, b = (_weighted_ranks(values, weights) for values in (first, second))
    a, b = a - np.average(a, weights=weights), b - np.average(b, weights=weights)
    scale = np.sqrt(np.sum(weights * a * a) * np.sum(weights * b * b))
    return float(np.sum(weights * a * b) / scale) if scale > 0 else None


def _weighted_ranks(values: Array, weights: Array) -> Array:
    """Return the weight below each value and half of the weight at it."""
    _, place = np.unique(values, return_inverse=True)
    at = np.bincount(place, weights=weights)
    return (np.cumsum(at) - at / 2.0)[place]


def _weights(rows: Sequence[Scored]) -> Array:
    sizes = Counter(row.group for row in rows)
    return np.asarray([1.0 / sizes[row.group] for row in rows])
