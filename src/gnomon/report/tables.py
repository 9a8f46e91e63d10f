"""The tables of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.plan.estimate import Estimate
from gnomon.report.comparison import Term
from gnomon.report.figures.operators import NUM_LONGEST, longest_operators
from gnomon.report.inputs import ReportInputs
from gnomon.report.words import (
    MISSING,
    format_time,
    format_value,
    join_words,
    plural,
    term_cells,
    three_digits,
)
from gnomon.spec import MEMORY_TERMS, TIME_TERMS
from gnomon.units import format_flops, format_percent, format_seconds

NUM_HISTORY_ROWS = 10
LABELS = {
    "num_parameters": "number of parameters",
    "model_flops": "model FLOPs",
    "tokens_per_s": "tokens per second",
    "mfu": "MFU",
    "git.dirty": "git: uncommitted changes",
}
ERROR_NOTE = (
    "Difference: measured − predicted. Error: (predicted − measured) / measured; "
    "negative means that the prediction was too low."
)
NOT_ENVIRONMENT = ("schema_version", "date_utc", "working_directory", "command")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text; `numeric` are the indices of right-aligned columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    note: str = ""


def all_tables(
    inputs: ReportInputs, headline: Sequence[Term], time: Sequence[Term], memory: Sequence[Term]
) -> dict[str, Table]:
    """Return every table that these inputs can fill, by name."""
    candidates = {
        "headline": term_table("Headline", headline, inputs, note=ERROR_NOTE),
        "time": term_table("Time of one step", time, inputs, total="step time", note=ERROR_NOTE),
        "memory": term_table("Peak memory of one rank", memory, inputs, total="peak memory"),
        "training": _training(inputs),
        "measured_operators": _measured_operators(inputs),
        "planned_operators": _planned_operators(inputs),
        "sources": _sources(inputs),
        "calibration": _calibration(inputs),
        "environment": _environment(inputs),
    }
    return {name: table for name, table in candidates.items() if table.rows}


def term_table(title: str, terms: Sequence[Term], inputs: ReportInputs, *, total: str = "", note: str = "") -> Table:
    """Return predicted, measured, difference and error per term, with their total; one side if only one is known."""
    shown = [*terms, _total(terms, total)] if total else list(terms)
    if inputs.comparison is None:
        side = "predicted" if inputs.estimate else "measured"
        words = any(term.explanation for term in shown)
        rows = [(term.label, format_value(getattr(term, side), term.unit), term.explanation) for term in shown]
        return Table(
            title=title,
            columns=("", side, "")[: 3 if words else 2],
            rows=tuple(row[: 3 if words else 2] for row in rows),
            numeric=(1,),
        )
    return Table(
        title=title,
        columns=("", "predicted", "measured", "difference", "error", "explanation"),
        rows=tuple((*term_cells(term), term.explanation) for term in shown),
        numeric=(1, 2, 3, 4),
        note=note,
    )


def _total(terms: Sequence[Term], label: str) -> Term:
    def add(side: str) -> float | None:
        values = [getattr(term, side) for term in terms]
        return None if all(value is None for value in values) else sum(value or 0.0 for value in values)

    return Term(name="total", label=label, unit=terms[0].unit, predicted=add("predicted"), measured=add("measured"))


def _training(inputs: ReportInputs) -> Table:
    evaluation = {row["step"]: row["eval_loss"] for row in inputs.metrics if row.get("eval_loss") is not None}
    rows = [row for row in inputs.metrics if row.get("loss") is not None]
    return Table(
        title="Training",
        columns=("step", "tokens", "loss", "evaluation loss", "step time", "tokens/s", "MFU"),
        rows=tuple(_training_row(row, evaluation) for row in _spread_over(rows, NUM_HISTORY_ROWS)),
        numeric=tuple(range(7)),
        note=f"{NUM_HISTORY_ROWS} of {len(rows):,} rows of metrics.jsonl." if len(rows) > NUM_HISTORY_ROWS else "",
    )


def _training_row(row: Mapping[str, Any], evaluation: Mapping[int, float]) -> tuple[str, ...]:
    step = row["step"]
    return (
        f"{step:,}",
        format_value(row.get("tokens"), "count"),
        f"{row['loss']:.3f}",
        f"{evaluation[step]:.3f}" if step in evaluation else MISSING,
        format_value(row.get("step_time_s"), "s"),
        format_value(row.get("tokens_per_s"), "1/s"),
        MISSING if row.get("mfu") is None else format_percent(row["mfu"]),
    )


def _spread_over(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return at most `count` rows, evenly spaced, the first and the last among them."""
    if len(rows) <= count:
        return rows
    return [rows[round(index * (len(rows) - 1) / (count - 1))] for index in range(count)]


def _measured_operators(inputs: ReportInputs) -> Table:
    operators = longest_operators(inputs.measurement) if inputs.measurement else []
    return Table(
        title="Longest measured operators",
        columns=("operator", "term", "calls per step", "time per step"),
        rows=tuple(
            (op.name, TIME_TERMS.get(op.term, op.term), f"{op.calls:,.0f}", format_seconds(op.time_s))
            for op in operators
        ),
        numeric=(2, 3),
    )


def _planned_operators(inputs: ReportInputs) -> Table:
    operators = inputs.estimate.operators if inputs.estimate else ()
    longest = sorted(operators, key=lambda operator: -operator.time_s)[:NUM_LONGEST]
    return Table(
        title="Longest planned operators",
        columns=("operator", "phase", "term", "work", "moved", "time", "bound by", "priced by"),
        rows=tuple(
            (
                operator.name,
                operator.phase,
                TIME_TERMS.get(operator.term, operator.term),
                three_digits(format_flops(operator.flops)) if operator.flops else MISSING,
                format_value(operator.traffic_bytes, "bytes"),
                format_seconds(operator.time_s),
                operator.bound,
                operator.source,
            )
            for operator in longest
        ),
        numeric=(3, 4, 5),
    )


def _sources(inputs: ReportInputs) -> Table:
    rows: list[tuple[str, str]] = []
    if inputs.estimate:
        rows += [(f"{_readable(key)}, predicted", source) for key, source in inputs.estimate.sources.items()]
        rows += _peak_source(inputs.estimate)
    if inputs.measurement:
        m = inputs.measurement
        rows.append(("step time, measured", f"median of {plural(m.num_steps, 'steady step')}, profiler off"))
        if m.num_profiled_steps:
            profiled = f"{plural(m.num_profiled_steps, 'profiled step')} of {format_seconds(m.profiled_step_time_s)}"
            rows.append(("split into terms, measured", f"shares of {profiled}, applied to the step time"))
        rows.append(("peak memory, measured", "resident memory of the process on a CPU, reserved memory on CUDA"))
        rows.append(("peak tensor memory, measured", "tensors alive at the peak, as the profiler saw them"))
    return Table(title="Where each number comes from", columns=("", "source"), rows=tuple(rows))


def _peak_source(estimate: Estimate) -> list[tuple[str, str]]:
    precision = estimate.workload.precision
    peak = estimate.cluster.accelerator.peak(precision)
    if peak is None:
        return [("peak FLOP/s", f"unknown for {precision}; there is no MFU")]
    return [
        (
            f"peak of the device, {precision}",
            f"{three_digits(format_flops(peak, True))}: {estimate.cluster.peak_source}",
        )
    ]


def _calibration(inputs: ReportInputs) -> Table:
    if inputs.hardware is None:
        return Table(title="Calibration", columns=(), rows=())
    hardware = inputs.hardware
    ranks = join_words([str(count) for count in sorted(hardware.shares)])
    rows = [
        ("measured", format_time(hardware.created)),
        ("took", format_seconds(hardware.duration_s)),
        ("ranks", ranks),
    ]
    rows += [(f"spread of {_readable(name)}", format_percent(value)) for name, value in hardware.spread.items()]
    return Table(
        title="Calibration",
        columns=("", ""),
        rows=tuple(rows),
        note="Spread: (90th − 10th percentile) / median over repeated benchmarks; "
        "a prediction cannot be surer than that.",
    )


def _environment(inputs: ReportInputs) -> Table:
    rows = _flatten({key: value for key, value in inputs.environment.items() if key not in NOT_ENVIRONMENT})
    return Table(title="Environment", columns=("", ""), rows=tuple(rows))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        rows += _environment_rows(f"{prefix}{key}", value)
    return rows


def _environment_rows(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return _flatten(value, f"{name}.")
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        return [row for index, item in enumerate(value) for row in _environment_rows(f"{name}.{index}", item)]
    if value is None or value == []:
        return []
    if name.endswith("_bytes") and isinstance(value, int | float):
        return [(_readable(name), format_value(value, "bytes"))]
    text = ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    return [(_readable(name), {"True": "yes", "False": "no"}.get(text, text))]


def _readable(key: str) -> str:
    """Return a figure's label, or the key without its unit, dots and underscores."""
    label = LABELS.get(key) or TIME_TERMS.get(key) or MEMORY_TERMS.get(key)
    return label or key.removesuffix("_bytes").removesuffix("_s").replace("_", " ").replace("gpus.", "GPU ").replace(
        ".", ": "
    )
