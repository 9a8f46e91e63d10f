"""The rows of a table that a fit can use: their problems as arrays, what they measured, and how much each counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.errors import PlanError
from gnomon.plan.arrays import Array, stack
from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import evaluate
from gnomon.plan.published.columns import OUTCOMES, text
from gnomon.plan.published.memory_kinds import memory_kind
from gnomon.plan.published.predict import Prediction, Prepared, memory_of, predict, prepare, step_time_s
from gnomon.plan.published.rows import Problem
from gnomon.plan.published.targets import measured_memory, target_of

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Arrays over the rows that can be predicted. Logarithms of what was measured are NaN where nothing was."""

    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    cases: Cases
    log_step_time: Array
    log_memory: Array
    asked_micro_batches: Array

    @property
    def sources(self) -> list[str]:
        """The source of each row."""
        return [str(row.get("source") or "not stated") for row in self.rows]

    def predicted_log_step_time(self, cases: Cases) -> Array:
        """Return the logarithm of the step times of `cases`, which are these cases with other constants."""
        with np.errstate(all="ignore"):
            return np.asarray(np.log(step_time_s(cases, evaluate(cases), self.asked_micro_batches)))

    def predicted_log_memory(self, cases: Cases) -> Array:
        """Return the logarithm of the memory, in the unit and of the kind of each row."""
        kinds = [memory_kind(text(row, "mem_kind")) for row in self.rows]
        with np.errstate(all="ignore"):
            return np.asarray(np.log(memory_of(evaluate(cases), kinds)))

    def weights(self, log_targets: Array, without: str | None = None) -> Array:
        """Return how much each row counts: nothing where it measured nothing, is of grade C or of source `without`.

        A `config_group` counts as one row, and a source as the square root of its groups: a source is one machine and
        one version of one program, whose peculiarities more rows do not average out.
        """
        sources = self.sources
        used = np.asarray(
            [
                np.isfinite(target) and text(row, "grade") != "c" and source != without
                for target, row, source in zip(log_targets, self.rows, sources, strict=True)
            ]
        )
        groups = [(s, row.get("config_group") or row.get("id")) for s, row in zip(sources, self.rows, strict=True)]
        sizes = Counter(group for group, use in zip(groups, used, strict=True) if use)
        distinct = Counter(source for source, _ in sizes)
        return np.asarray(
            [
                1.0 / (sizes[group] * np.sqrt(distinct[group[0]])) if use else 0.0
                for group, use in zip(groups, used, strict=True)
            ]
        )


def observe(rows: Iterable[Row], progress: Callable[[int], None] | None = None) -> Observations:
    """Return what the rows say; those that are refused are left out. Raises PlanError when none is left.

    Also when none of them states an outcome, from which nothing can be learned.
    """
    kept: list[Row] = []
    prepared: list[Prepared] = []
    for count, row in enumerate(rows, start=1):
        try:
            prepared.append(prepare(row))
            kept.append(row)
        except PlanError:
            pass
        if progress is not None:
            progress(count)
    if not kept:
        raise PlanError("No row of the table can be predicted; gnomon plan validate says why.")
    found = [_measured(row, prediction) for row, prediction in zip(kept, predict(kept), strict=True)]
    if not np.isfinite(found).any():
        raise PlanError(
            "No row of the table that can be predicted has an outcome to fit to; "
            f"give one of the columns {', '.join(OUTCOMES)}."
        )
    return Observations(
        rows=tuple(kept),
        problems=tuple(p.problem for p in prepared),
        cases=stack([p.cases for p in prepared]),
        log_step_time=np.log([step for step, _ in found]),
        log_memory=np.log([memory for _, memory in found]),
        asked_micro_batches=_asked(prepared),
    )


def _asked(prepared: Sequence[Prepared]) -> Array:
    return np.asarray([p.problem.workload.accumulation(p.problem.layout.dp) for p in prepared], dtype=np.float64)


def _measured(row: Row, prediction: Prediction) -> tuple[float, float]:
    """Return the measured step time and memory, NaN where there is none or it cannot be read."""
    try:
        step, memory = target_of(row, prediction).step_time_s, measured_memory(row)
    except PlanError:
        return np.nan, np.nan
    return step or np.nan, memory or np.nan
