"""Figures of a plan: memory by stage, the step from ideal to predicted, the pipeline, scaling, and the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gnomon.plan.estimate import Estimate
from gnomon.plan.search.result import Candidate
from gnomon.plan.simulate import Timeline
from gnomon.report.figures._base import add_bars, add_end_labels, label_of, mark, new_bar_figure, new_figure
from gnomon.report.palette import PREDICTED, REFERENCE, colour_of
from gnomon.spec import MEMORY_TERMS, TIME_TERMS
from gnomon.units import format_bytes, format_seconds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PASSES = {"F": ("forward", "#0072B2"), "B": ("backward", "#E69F00"), "W": ("weight gradient", "#009E73")}
GIB = 2**30


def stage_memory(estimate: Estimate) -> Figure:
    """Return the memory terms of each kind of pipeline stage in GiB, against the device's capacity."""
    names = [str(stage.name) for stage in estimate.stages]
    figure = new_bar_figure("peak memory of one rank (GiB)", rows=1.5 * len(names))
    for term, label in MEMORY_TERMS.items():
        sizes = [stage.memory.as_dict()[term] for stage in estimate.stages]
        if any(sizes):
            style = {"color": colour_of(term), "line": {"width": 1, "color": "rgba(255,255,255,0.7)"}}
            add_bars(figure, label, names, [s / GIB for s in sizes], [format_bytes(s) for s in sizes], marker=style)
    totals = [stage.memory.total_bytes for stage in estimate.stages]
    add_end_labels(figure, names, [t / GIB for t in totals], [format_bytes(t) for t in totals])
    capacity = estimate.cluster.accelerator.memory_bytes
    reach = max(totals)
    if capacity is not None and capacity <= 4 * reach:
        reach = max(reach, capacity)
        figure.update_layout(margin_t=28)
        mark(figure, f"device has {format_bytes(capacity)}", x=capacity / GIB)
    figure.update_xaxes(range=[0, 1.05 * reach / GIB])
    figure.update_layout(barmode="relative", bargap=0.35)
    return figure


def step_waterfall(estimate: Estimate, ideal_s: float | None) -> Figure:
    """Return how the terms add up to the step time, with the time at the peak FLOP/s marked."""
    terms = [(label_of(TIME_TERMS[t]), s, colour_of(t)) for t, s in estimate.time.as_dict().items() if s > 0]
    figure = new_bar_figure("seconds of one step", rows=len(terms) + 1.5)
    start = 0.0
    for label, seconds, colour in terms:
        add_bars(
            figure,
            label.replace("<br>", " "),
            [label],
            [seconds],
            [format_seconds(seconds)],
            base=[start],
            marker={"color": colour},
        )
        start += seconds
    add_bars(figure, "step", ["step"], [start], [format_seconds(start)], marker={"color": PREDICTED})
    ends, total = [], 0.0
    for _, seconds, _ in terms:
        total += seconds
        ends.append(total)
    labels = [label for label, _, _ in terms]
    texts = [format_seconds(s) for _, s, _ in terms]
    add_end_labels(figure, [*labels, "step"], [*ends, start], [*texts, format_seconds(start)])
    if ideal_s:
        figure.update_layout(margin_t=28)
        mark(figure, f"at the peak: {format_seconds(ideal_s)}", x=ideal_s)
    figure.update_xaxes(range=[0, 1.25 * start])
    figure.update_layout(barmode="overlay")
    return figure


def pipeline_timeline(timeline: Timeline) -> Figure:
    """Return a Gantt chart: what each pipeline rank does when."""
    ranks = sorted({span.rank for span in timeline.spans})
    labels = {rank: f"rank {rank}" for rank in ranks}
    figure = new_bar_figure("seconds", rows=0.8 * len(ranks))
    for kind, (name, colour) in PASSES.items():
        spans = [span for span in timeline.spans if span.kind == kind]
        if not spans:
            continue
        figure.add_bar(
            orientation="h",
            name=name,
            y=[labels[s.rank] for s in spans],
            x=[s.end_s - s.start_s for s in spans],
            base=[s.start_s for s in spans],
            marker={"color": colour, "line": {"width": 0.5, "color": "rgba(255,255,255,0.8)"}},
            customdata=[[s.micro_batch, s.chunk] for s in spans],
            hovertemplate=f"{name} of micro-batch %{{customdata[0]}}, chunk %{{customdata[1]}}<br>%{{x:.3g}} s"
            "<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.15, margin_r=16)
    return figure


def scaling(points: Sequence[Estimate]) -> Figure:
    """Return tokens per second over accelerators, with the line of perfect scaling from the first point."""
    counts = [p.layout.num_ranks for p in points]
    rates = [p.tokens_per_s for p in points]
    figure = new_figure("accelerators", y_title="tokens per second")
    ideal = [rates[0] * count / counts[0] for count in counts]
    dash = {"color": REFERENCE, "dash": "dash", "width": 1.5}
    figure.add_scatter(x=counts, y=ideal, mode="lines", name="perfect scaling", line=dash, hoverinfo="skip")
    figure.add_scatter(
        x=counts,
        y=rates,
        mode="lines+markers",
        name="predicted",
        line={"color": PREDICTED, "width": 2},
        customdata=[[p.mfu or 0.0, p.tokens_per_s_per_accelerator] for p in points],
        hovertemplate="%{x} accelerators: %{y:.4g} tokens/s<br>%{customdata[1]:.4g} each, MFU %{customdata[0]:.1%}"
        "<extra></extra>",
    )
    figure.update_xaxes(type="log", tickvals=counts, ticktext=[str(c) for c in counts])
    figure.update_yaxes(type="log", nticks=6)
    return figure


def pareto(front: Sequence[Candidate], chosen: Estimate) -> Figure:
    """Return step time over peak memory of the layouts that no other beats, and of the one that was asked for."""
    figure = new_figure("peak memory of one rank (GiB)", y_title="seconds of one step")
    figure.add_scatter(
        x=[c.peak_memory_bytes / GIB for c in front],
        y=[c.step_time_s for c in front],
        mode="lines+markers",
        name="best for its memory",
        line={"color": PREDICTED, "width": 1.5, "shape": "hv"},
        customdata=[[_words(c)] for c in front],
        hovertemplate="%{customdata[0]}<br>%{y:.4g} s, %{x:.1f} GiB<extra></extra>",
    )
    figure.add_scatter(
        x=[chosen.memory.total_bytes / GIB],
        y=[chosen.step_time_s],
        mode="markers",
        name="this plan",
        marker={"color": "#D55E00", "size": 12, "symbol": "diamond"},
        hovertemplate="this plan<br>%{y:.4g} s, %{x:.1f} GiB<extra></extra>",
    )
    return figure


def _words(candidate: Candidate) -> str:
    from gnomon.plan.search.render import layout_words

    return f"{layout_words(candidate.layout)}, micro-batch {candidate.workload.micro_batch}"
