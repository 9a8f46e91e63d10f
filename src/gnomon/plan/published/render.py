"""The score of a table as rich tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gnomon.plan.published.fit import Fit
from gnomon.plan.published.parameters import Parameter
from gnomon.plan.published.score import Scored
from gnomon.units import format_percent, format_seconds

ERRORS = ("n", "median", "mean", "p90", "bias", "rank")


def render_score(rows: Sequence[Scored], summary: Mapping[str, Any], by: str, worst: int) -> RenderableType:
    """Return the errors by group, the memory errors, what was refused, and the `worst` rows."""
    counted = f"{summary['predicted']} of {summary['rows']} rows predicted, {summary['n']} compared"
    parts: list[RenderableType] = [Text(counted), _groups(summary, by)]
    if summary["memory"]["n"]:
        parts.append(_memory(summary, by))
    parts += _reasons("Refused", summary["refused"])
    parts += _reasons("Predicted, not compared", summary["not_compared"])
    parts += _reasons("Remarks", {remark: len(ids) for remark, ids in summary["remarks"].items()})
    if worst:
        parts += _rows(rows, worst)
    return Group(*parts)


def error_cells(errors: Mapping[str, Any]) -> list[str]:
    """Return the cells under `ERRORS`."""
    cells = [str(errors["n"])]
    cells += ["" if errors[name] is None else format_percent(errors[name]) for name in ("median", "mean", "p90")]
    cells.append("" if errors["bias"] is None else f"{100.0 * errors['bias']:+.1f} %")
    rank = errors.get("spearman")
    return [*cells, "" if rank is None else f"{rank:.3f}"]


def _groups(summary: Mapping[str, Any], by: str) -> Table:
    table = _table("Step time, predicted against measured", (by, *ERRORS, "refused"))
    for name, errors in summary["by"][by].items():
        table.add_row(Text(name), *error_cells(errors), str(errors["refused"] or ""))
    table.add_section()
    table.add_row("all", *error_cells(summary), str(sum(summary["refused"].values()) or ""), style="bold")
    return table


def _memory(summary: Mapping[str, Any], by: str) -> Table:
    table = _table("Peak memory, predicted against measured", (by, *ERRORS[:-1]))
    for name, group in summary["by"][by].items():
        if group["memory"]["n"]:
            table.add_row(Text(name), *error_cells(group["memory"])[:-1])
    table.add_section()
    table.add_row("all", *error_cells(summary["memory"])[:-1], style="bold")
    return table


def _reasons(title: str, counts: Mapping[str, int]) -> list[Table]:
    if not counts:
        return []
    table = _table(title, ("reason", "rows"))
    for reason, count in counts.items():
        table.add_row(Text(reason), str(count))
    return [table]


def _rows(rows: Sequence[Scored], count: int) -> list[Table]:
    """Return the rows with the largest errors, or the first predictions where nothing was measured."""
    known = sorted((row for row in rows if row.error is not None), key=lambda row: -abs(row.error or 0.0))
    shown = (known or [row for row in rows if row.prediction.refused is None])[:count]
    if not shown:
        return []
    table = _table(
        "Largest errors" if known else "Predictions",
        ("id", "predicted", "measured", "error", "tokens/s/accelerator", "MFU %", "memory", "measured"),
    )
    for row in shown:
        found, memory = row.prediction, row.measured_memory_gb
        table.add_row(
            Text(row.id),
            format_seconds(found.step_time_s),
            "" if row.measured_s is None else format_seconds(row.measured_s),
            "" if row.error is None else f"{100.0 * row.error:+.1f} %",
            f"{found.tokens_per_s_per_accel:.1f}",
            f"{found.mfu_pct:.1f}",
            f"{found.memory_gb_per_accel:.1f}",
            "" if memory is None else f"{memory:.1f}",
        )
    return [table]


def render_fit(parameters: Sequence[Parameter], fitted: Fit) -> Table:
    """Return each parameter's prior, its value in the catalog, the fitted one and its uncertainty."""
    table = _table(
        "Fitted constants", ("parameter", "prior", "catalog", "fitted", "uncertainty", "unit", "rows", "meaning")
    )
    for parameter, value, spread in zip(parameters, fitted.values, fitted.uncertainties, strict=True):
        table.add_row(
            parameter.name,
            f"{parameter.prior:.4g}",
            f"{parameter.value:.4g}",
            f"{value:.4g}",
            f"{spread:.2g}",
            parameter.constant.unit,
            str(int(parameter.any_rows.sum())),
            parameter.constant.meaning,
        )
    return table


def render_errors(errors: Mapping[str, Any]) -> Table:
    """Return the errors that a fit leaves on each source."""
    table = _table("Errors after the fit", ("source", *ERRORS[:-1]))
    for name, found in errors.items():
        table.add_row(Text(name), *error_cells(found)[:-1])
    return table


def render_held_out(inside: Mapping[str, Any], outside: Mapping[str, Any]) -> Table:
    """Return the errors of each source, fitted with it and without it."""
    columns = ("source", "n", "median", "mean", "bias", "median, left out", "mean, left out", "bias, left out")
    table = _table("Each source, fitted with and without it", columns)
    for name, errors in inside.items():
        cells, other = error_cells(errors), error_cells(outside[name])
        table.add_row(Text(name), cells[0], cells[1], cells[2], cells[4], other[1], other[2], other[4])
    return table


def _table(title: str, columns: Iterable[str]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table
