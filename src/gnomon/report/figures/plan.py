"""Figures of a plan: memory by stage, the step from ideal to predicted, the pipeline, scaling, and the search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gnomon.plan.estimate import Estimate
from gnomon.plan.search.result import Candidate
from gnomon.plan.simulate import Timeline
from gnomon.report.figures._base import add_bars, add_end_labels, label_of, log_axis, mark, new_bar_figure, new_figure
from gnomon.report.palette import MEASURED, PREDICTED, REFERENCE, SERIES, colour_of
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
    capacity = estimate.cluster.accelerator.memory_bytes
    ends = [capacity if capacity and 0.75 * capacity < t <= capacity else t for t in totals]  # not across its line
    add_end_labels(figure, names, [end / GIB for end in ends], [format_bytes(t) for t in totals])
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
            marker={"color": colour, "line": {"width": 0.5, "color": "rgba(128,128,128,0.5)"}},
            customdata=[[s.micro_batch, s.chunk] for s in spans],
            hovertemplate=f"{name} of micro-batch %{{customdata[0]}}, chunk %{{customdata[1]}}<br>%{{x:.3g}} s"
            "<extra></extra>",
        )
    figure.update_layout(barmode="overlay", bargap=0.15, margin_r=16)
    return figure


def scaling(replicas: Sequence[Estimate], best: Sequence[Candidate]) -> Figure:
    """Return tokens per second over accelerators: more replicas, the best layouts, and the line of perfect scaling."""
    figure = new_figure("accelerators", y_title="tokens per second")
    weak = [(p.layout.num_ranks, p.tokens_per_s, f"MFU {p.mfu or 0.0:.1%}") for p in replicas]
    strong = [(c.num_accelerators, c.workload.tokens_per_step / c.step_time_s, _words(c)) for c in best]
    lines = {"strong scaling, best layouts": (strong, MEASURED), "weak scaling, more replicas": (weak, PREDICTED)}
    counts = sorted({count for count, _, _ in (*weak, *strong)})
    first = min((*strong, *weak), key=lambda point: point[0])
    ideal = [first[1] * count / first[0] for count in counts]
    dash = {"color": REFERENCE, "dash": "dash", "width": 1.5}
    figure.add_scatter(x=counts, y=ideal, mode="lines", name="perfect scaling", line=dash, hoverinfo="skip")
    for name, (points, colour) in lines.items():
        if len(points) > 1:
            figure.add_scatter(
                x=[count for count, _, _ in points],
                y=[rate for _, rate, _ in points],
                mode="lines+markers",
                name=name,
                line={"color": colour, "width": 2},
                customdata=[[rate / count, words] for count, rate, words in points],
                hovertemplate="%{x} accelerators: %{y:.4g} tokens/s, %{customdata[0]:.4g} each<br>%{customdata[1]}"
                "<extra></extra>",
            )
    figure.update_xaxes(**log_axis(counts, marked=counts))
    figure.update_yaxes(**log_axis([*ideal, *(rate for _, rate, _ in (*weak, *strong))]))
    return figure


def pareto(front: Sequence[Candidate], chosen: Estimate, name: str) -> Figure:
    """Return step time over peak memory of the layouts that no other beats, and of the one that is called `name`.

    Each number of accelerators has its own line: with more of them a slower layout that needs more memory can be on
    the front, because it costs less.
    """
    figure = new_figure("peak memory of one rank (GiB)", y_title="seconds of one step")
    counts = sorted({c.num_accelerators for c in front})
    for place, count in enumerate(counts):
        title = "fastest for its memory" if len(counts) == 1 else f"{count} accelerators"
        _add_front(figure, [c for c in front if c.num_accelerators == count], title, place)
    figure.add_scatter(
        x=[chosen.memory.total_bytes / GIB],
        y=[chosen.step_time_s],
        mode="markers",
        name=name,
        marker={"color": MEASURED, "size": 12, "symbol": "diamond"},
        hovertemplate=f"{name}<br>%{{y:.4g}} s, %{{x:.1f}} GiB<extra></extra>",
    )
    capacity = chosen.cluster.accelerator.memory_bytes
    if capacity is not None and chosen.memory.total_bytes > 0.5 * capacity:
        figure.update_layout(margin_t=28)
        mark(figure, f"device has {format_bytes(capacity)}", x=capacity / GIB)
    times = [chosen.step_time_s, *(c.step_time_s for c in front)]
    figure.update_xaxes(rangemode="tozero")
    if max(times) > 3 * min(times):
        figure.update_yaxes(**log_axis(times))
    return figure


def _add_front(figure: Figure, front: Sequence[Candidate], title: str, place: int) -> None:
    """Add the front of one number of accelerators, by step time, as steps: it is the `place`-th line of the figure."""
    figure.add_scatter(
        x=[c.peak_memory_bytes / GIB for c in front],
        y=[c.step_time_s for c in front],
        mode="lines+markers",
        name=title,
        # from the fastest on: with a little less memory than a point, the next one is the fastest
        line={"color": SERIES[place % len(SERIES)], "width": 1.5, "shape": "vh"},
        customdata=[[_words(c), c.num_accelerators] for c in front],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]} accelerators: %{y:.4g} s, %{x:.1f} GiB<extra></extra>",
    )


def _words(candidate: Candidate) -> str:
    from gnomon.plan.render import layout_words

    return f"{layout_words(candidate.layout)}, micro-batch {candidate.workload.micro_batch}"
