"""A search as rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from gnomon.plan.render import layout_words
from gnomon.plan.search.explain import SHARES
from gnomon.plan.search.result import Candidate, SearchResult
from gnomon.plan.search.sensitivity import Gain
from gnomon.units import format_bytes, format_count, format_percent, format_seconds

PARETO_ROWS = 12


def render_search(
    result: SearchResult, gains: tuple[Gain, ...] = (), smallest: Candidate | None = None
) -> RenderableType:
    """Return what was looked at, the best layouts and why the others lost, and the Pareto front.

    smallest: the layout that needs the least memory, to be named where none fits
    """
    parts: list[RenderableType] = [_summary(result)]
    if not result.best:
        parts.append(nothing_fits(smallest))
        return Group(*parts)
    parts += [_best(result), _pareto(result)]
    if gains:
        parts.append(_gains(gains))
    return Group(*parts)


def nothing_fits(smallest: Candidate | None) -> str:
    """Return that no layout fits, and what the smallest would need."""
    if smallest is None:
        return "No layout fits the memory."
    needs, layout = format_bytes(smallest.peak_memory_bytes), layout_words(smallest.layout)
    return (
        f"No layout fits the memory. The smallest needs {needs} per rank: {layout}, "
        f"micro-batch {smallest.workload.micro_batch}. Take more accelerators, a smaller batch, or offload."
    )


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
    columns = (*_columns(result), "MFU", "memory", *_cost_column(result), "against the best")
    table = _table("Best layouts", *columns)
    table.caption = f"% in the last column: of {SHARES[result.objective]}"
    for row in result.best:
        c = row.candidate
        mfu = "" if row.estimate.mfu is None else format_percent(row.estimate.mfu)
        cost = (cost_words(c),) if result.shows_cost else ()
        table.add_row(*_cells(c, result), mfu, format_bytes(c.peak_memory_bytes), *cost, row.why)
    return table


def _pareto(result: SearchResult) -> Table:
    columns = (*_columns(result), "memory", cost_title(result))
    table = _table("No layout is better in time, memory and cost", *columns)
    for c in result.pareto[:PARETO_ROWS]:
        table.add_row(*_cells(c, result), format_bytes(c.peak_memory_bytes), cost_words(c))
    left = len(result.pareto) - PARETO_ROWS
    if left > 0:
        table.caption = f"{left} more: --json has them"
    return table


def cost_title(result: SearchResult) -> str:
    """Return what `cost_words` are of: money where a price is known, else accelerator-hours; of one step."""
    priced = any(c.cost_per_step is not None for c in result.pareto)
    return "cost per step" if priced else "accelerator-hours"


def cost_words(candidate: Candidate) -> str:
    """Return what a step costs: money where a price is known, else accelerator-hours."""
    hours, money = candidate.accelerator_hours_per_step, candidate.cost_per_step
    return f"{hours if money is None else money:.4g}"


def _gains(gains: tuple[Gain, ...]) -> Table:
    table = _table("What better hardware would bring", "change", "step time", "faster", "layout")
    for gain in gains:
        layout = "another" if gain.layout_changes else "the same"
        table.add_row(gain.change, format_seconds(gain.step_time_s), f"{gain.speedup:.2f}x", layout)
    return table


def _columns(result: SearchResult) -> tuple[str, ...]:
    accelerators = ("accelerators",) if result.shows_cost else ()
    return ("layout", "micro-batch", *accelerators, "step time")


def _cost_column(result: SearchResult) -> tuple[str, ...]:
    return (cost_title(result),) if result.shows_cost else ()


def _cells(candidate: Candidate, result: SearchResult) -> tuple[str, ...]:
    """Return what stands under `_columns`."""
    accelerators = (str(candidate.num_accelerators),) if result.shows_cost else ()
    layout, micro_batch = layout_words(candidate.layout), str(candidate.workload.micro_batch)
    return (layout, micro_batch, *accelerators, format_seconds(candidate.step_time_s))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, overflow="fold", justify="left" if index in (0, len(columns) - 1) else "right")
    return table
