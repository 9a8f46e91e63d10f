"""A search as rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from gnomon.plan.search.result import Candidate, SearchResult
from gnomon.plan.search.sensitivity import Gain
from gnomon.spec import Layout
from gnomon.units import format_bytes, format_count, format_percent, format_seconds

PARETO_ROWS = 12


def render_search(result: SearchResult, gains: tuple[Gain, ...] = ()) -> RenderableType:
    """Return what was looked at, the best layouts and why the others lost, and the Pareto front."""
    parts: list[RenderableType] = [_summary(result), _best(result), _pareto(result)]
    if gains:
        parts.append(_gains(gains))
    return Group(*parts)


def layout_words(layout: Layout) -> str:
    """Return a layout as the settings that differ from one rank."""
    default = Layout()
    shown = {n: getattr(layout, n) for n in type(layout).model_fields if getattr(layout, n) != getattr(default, n)}
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "one rank"


def _summary(result: SearchResult) -> Table:
    table = Table(title=f"{result.model.name} on {result.cluster.name}", title_justify="left", show_header=False)
    rate = result.num_evaluated / result.seconds if result.seconds else 0.0
    table.add_row("candidates", format_count(result.num_candidates))
    evaluated = f"{format_count(result.num_evaluated)} in {format_seconds(result.seconds)}"
    table.add_row("evaluated", f"{evaluated}, {format_count(rate)}/s")
    table.add_row("that fit", format_count(result.num_fitting))
    for reason, count in sorted(result.rejected.items(), key=lambda item: -item[1]):
        table.add_row(f"rejected: {reason}", format_count(count))
    return table


def _best(result: SearchResult) -> Table:
    table = _table("Best layouts", "layout", "micro-batch", "step time", "MFU", "memory", "against the best")
    for row in result.best:
        c = row.candidate
        mfu = "" if row.estimate.mfu is None else format_percent(row.estimate.mfu)
        table.add_row(*_cells(c), mfu, format_bytes(c.peak_memory_bytes), row.why)
    return table


def _pareto(result: SearchResult) -> Table:
    priced = any(c.cost_per_step is not None for c in result.pareto)
    cost = "cost per step" if priced else "accelerator-hours"
    table = _table("No layout is better in time, memory and cost", "layout", "micro-batch", "step time", "memory", cost)
    for c in result.pareto[:PARETO_ROWS]:
        value = c.cost_per_step if c.cost_per_step is not None else c.accelerator_hours_per_step
        table.add_row(*_cells(c), format_bytes(c.peak_memory_bytes), f"{value:.4g}")
    left = len(result.pareto) - PARETO_ROWS
    if left > 0:
        table.caption = f"{left} slower ones with less memory: --json has them"
    return table


def _gains(gains: tuple[Gain, ...]) -> Table:
    table = _table("What better hardware would bring", "change", "step time", "faster", "layout")
    for gain in gains:
        layout = "another" if gain.layout_changes else "the same"
        table.add_row(gain.change, format_seconds(gain.step_time_s), f"{gain.speedup:.2f}x", layout)
    return table


def _cells(candidate: Candidate) -> tuple[str, str, str]:
    return layout_words(candidate.layout), str(candidate.workload.micro_batch), format_seconds(candidate.step_time_s)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if index in (0, len(columns) - 1) else "right")
    return table
