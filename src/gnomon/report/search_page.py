"""A search as one HTML page: the best layouts and the Pareto front, then the plan of the best."""

from __future__ import annotations

from gnomon.plan.render import layout_words
from gnomon.plan.search import SearchResult
from gnomon.plan.search.explain import SHARES
from gnomon.plan.search.render import cost_title, cost_words
from gnomon.plan.search.sensitivity import Gain
from gnomon.report.figures import plan as plan_figures
from gnomon.report.panels import make_panel
from gnomon.report.plan_page import estimate_facts, plan_sections
from gnomon.report.scaling import Progress, best_by_number
from gnomon.report.section import Page, Section, render_page
from gnomon.report.tables import Table
from gnomon.units import format_bytes, format_count, format_percent, format_seconds

MOST_FRONT_ROWS = 50


def render_search_page(result: SearchResult, gains: tuple[Gain, ...] = (), progress: Progress | None = None) -> str:
    """Return the page of a search that found at least one layout that fits.

    progress: called with (numbers of accelerators searched, all of them)
    """
    best = result.best[0].estimate
    of_best = plan_sections(best, by_number=best_by_number(best, progress))
    sections = [_front(result), _best(result), *_gains(gains), *of_best]
    looked, step = format_count(result.num_evaluated), format_seconds(best.step_time_s)
    where = f" on {best.layout.num_ranks} accelerators" if result.shows_cost else ""
    return render_page(
        Page(
            title=f"{result.model.name} on {result.cluster.name}: {looked} layouts",
            facts=[("Objective", result.objective.replace("_", " ")), *estimate_facts(best)],
            answer=f"The best takes {step}{where}: {layout_words(best.layout)}, "
            f"micro-batch {best.workload.micro_batch}.",
            sections=sections,
            assumptions=best.assumptions,
        )
    )


def _front(result: SearchResult) -> Section:
    rows = tuple(
        (
            layout_words(c.layout),
            str(c.workload.micro_batch),
            str(c.num_accelerators),
            format_seconds(c.step_time_s),
            format_bytes(c.peak_memory_bytes),
            cost_words(c),
        )
        for c in result.pareto[:MOST_FRONT_ROWS]
    )
    columns = ("layout", "micro-batch", "accelerators", "step time", "memory")
    lines = "Each line is one number of accelerators. " if len(result.accelerators) > 1 else ""
    caption = f"{lines}No layout beats one of these in time, memory and cost together; the diamond is the best."
    return Section(
        key="front",
        title="The layouts that nothing beats",
        reading=f"{format_count(result.num_fitting)} of {format_count(result.num_evaluated)} layouts fit; "
        f"{len(result.pareto)} of them are on the Pareto front.",
        panels=(
            make_panel(
                "front",
                "Step time by memory",
                caption,
                plan_figures.pareto(result.pareto, result.best[0].estimate, "the best"),
            ),
        ),
        tables=(
            Table(
                title="Pareto front" if len(rows) == len(result.pareto) else f"The fastest {len(rows)} of the front",
                columns=(*columns, cost_title(result)),
                rows=rows,
                numeric=(1, 2, 3, 4, 5),
            ),
            Table(
                title="What was looked at",
                columns=("layouts", "number"),
                rows=_looked(result),
                numeric=(1,),
            ),
        ),
    )


def _looked(result: SearchResult) -> tuple[tuple[str, str], ...]:
    rejected = sorted(result.rejected.items(), key=lambda item: -item[1])
    return (
        ("candidates", format_count(result.num_candidates)),
        ("evaluated", format_count(result.num_evaluated)),
        ("that fit", format_count(result.num_fitting)),
        *((f"rejected: {reason}", format_count(count)) for reason, count in rejected),
    )


def _best(result: SearchResult) -> Section:
    rows = tuple(
        (
            layout_words(row.candidate.layout),
            str(row.candidate.workload.micro_batch),
            *((str(row.candidate.num_accelerators),) if result.shows_cost else ()),
            format_seconds(row.candidate.step_time_s),
            "" if row.estimate.mfu is None else format_percent(row.estimate.mfu),
            format_bytes(row.candidate.peak_memory_bytes),
            *((cost_words(row.candidate),) if result.shows_cost else ()),
            row.why,
        )
        for row in result.best
    )
    accelerators, cost = (("accelerators",), (cost_title(result),)) if result.shows_cost else ((), ())
    columns = ("layout", "micro-batch", *accelerators, "step time", "MFU", "memory", *cost, "against the best")
    return Section(
        key="best",
        title="The best, and why the others lost",
        reading=f"Percentages are shares of {SHARES[result.objective]}; the terms that make the difference are named.",
        tables=(Table(title="Best layouts", columns=columns, rows=rows, numeric=tuple(range(1, len(columns) - 1))),),
    )


def _gains(gains: tuple[Gain, ...]) -> list[Section]:
    if not gains:
        return []
    rows = tuple(
        (
            gain.change,
            format_seconds(gain.step_time_s),
            f"{gain.speedup:.2f}x",
            "another" if gain.layout_changes else "the same",
        )
        for gain in gains
    )
    most = max(gains, key=lambda gain: gain.speedup)
    columns = ("change", "step time", "faster", "best layout")
    return [
        Section(
            key="hardware",
            title="What better hardware would bring",
            reading=f"Most would come from {most.change}: {most.speedup:.2f}x.",
            tables=(Table(title="Better hardware", columns=columns, rows=rows, numeric=(1, 2)),),
        )
    ]
