"""The figures of the page, each with a title and a caption that says what to see."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gnomon.report import figures
from gnomon.report.content import Content, loss_words
from gnomon.report.figures.memory import CAPACITY_IN_REACH
from gnomon.report.figures.operators import bandwidth_of, longest_operators, peak_of, roofline_operators
from gnomon.report.inputs import ReportInputs
from gnomon.report.palette import LESS, MEASURED, MORE, PREDICTED
from gnomon.report.words import format_value, join_words, three_digits
from gnomon.units import format_bandwidth, format_flops, format_percent, format_seconds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One entry of a legend; `style` is box, line, dash or dot."""

    label: str
    colour: str
    style: str = "box"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One figure of the page as plain JSON values, with its legend."""

    key: str
    title: str
    caption: str
    figure: dict[str, Any]
    legend: tuple[LegendEntry, ...]


WATERFALL_LEGEND = (
    LegendEntry(label="predicted", colour=PREDICTED),
    LegendEntry(label="took longer than predicted", colour=MORE),
    LegendEntry(label="took less than predicted", colour=LESS),
    LegendEntry(label="measured", colour=MEASURED),
)


def build_panels(inputs: ReportInputs, content: Content) -> dict[str, Panel]:
    """Return the figures that these inputs can fill, by name."""
    makers: tuple[Callable[[ReportInputs, Content], Panel | None], ...] = (
        _waterfall,
        _time_bars,
        _memory_bars,
        _loss,
        _step_times,
        _roofline,
        _top_operators,
    )
    panels = [maker(inputs, content) for maker in makers]
    return {panel.key: panel for panel in panels if panel is not None}


def make_panel(key: str, title: str, caption: str, figure: Figure) -> Panel:
    """Return a figure of the page with the legend that its traces need."""
    entries = [_legend_entry(trace) for trace in figure.data if trace.name and trace.showlegend is not False]
    return Panel(key=key, title=title, caption=caption, figure=json.loads(figure.to_json()), legend=tuple(entries))


def _legend_entry(trace: Any) -> LegendEntry:
    if trace.type == "scatter" and "lines" in trace.mode:
        style = {"dash": "dash", "dot": "dot"}.get(trace.line.dash or "", "line")
        return LegendEntry(label=trace.name, colour=trace.line.color, style=style)
    return LegendEntry(label=trace.name, colour=trace.marker.color)


def _waterfall(inputs: ReportInputs, content: Content) -> Panel | None:
    if inputs.comparison is None:
        return None
    caption = "From the predicted step time to the measured one: each bar between them is one term."
    figure = figures.waterfall(inputs.comparison)
    if figure.layout.xaxis.range[0] > 0:
        caption += " The axis is cut to show the differences, so compare the bars' ends, not their lengths."
    panel = make_panel("waterfall", "From predicted to measured", caption, figure)
    return replace(panel, legend=WATERFALL_LEGEND)


def _time_bars(inputs: ReportInputs, content: Content) -> Panel | None:
    sides = "Predicted and measured time of each term" if inputs.comparison else "Time of each term"
    caption = f"{sides}, on one rank; they add up to the step time. Terms that are zero are left out."
    return make_panel("time", "Time of one step, term by term", caption, figures.time_bars(content.time))


def _memory_bars(inputs: ReportInputs, content: Content) -> Panel | None:
    capacity = inputs.estimate.cluster.accelerator.memory_bytes if inputs.estimate else None
    peak = max(max(term.predicted or 0.0, term.measured or 0.0) for term in content.headline if term.unit == "bytes")
    caption = "What holds the memory at the peak of one step."
    if capacity and capacity > CAPACITY_IN_REACH * peak:
        caption += (
            f" The device has {format_value(capacity, 'bytes')}, of which the larger bar is "
            f"{format_percent(peak / capacity)}; a line for it would lie far to the right."
        )
    elif capacity is None:
        caption += " The memory of the device is unknown."
    return make_panel("memory", "Peak memory, term by term", caption, figures.memory_bars(content.memory, capacity))


def _loss(inputs: ReportInputs, content: Content) -> Panel | None:
    if not any(row.get("loss") is not None for row in inputs.metrics):
        return None
    noun = inputs.estimate or inputs.measurement
    vocab_size = noun.model.vocab_size if noun else None
    caption = (
        f"{loss_words(inputs)} The dotted line is a guess that gives every token the same probability: "
        "a model that learns lies below it."
    )
    return make_panel("loss", "Loss", caption.strip(), figures.loss_curve(inputs.metrics, vocab_size))


def _step_times(inputs: ReportInputs, content: Content) -> Panel | None:
    times = [row["step_time_s"] for row in inputs.metrics if row.get("step_time_s") is not None]
    if not times:
        return None
    predicted = inputs.estimate.step_time_s if inputs.estimate else None
    measured = inputs.measurement.step_time_s if inputs.measurement else None
    caption = "Each point is the mean since the point before it, without evaluation and checkpoints."
    if inputs.measurement:
        caption += " The measured line is the median of the steady steps: first steps warm up and do not count."
    limit = figures.step_time_limit([1e3 * time for time in times], predicted)
    if 1e3 * max(times) > limit:
        caption += f" The slowest point, {format_seconds(max(times))}, lies above the chart."
    return make_panel(
        "step_times", "Step time over the run", caption, figures.step_times(inputs.metrics, predicted, measured)
    )


def _roofline(inputs: ReportInputs, content: Content) -> Panel | None:
    if inputs.estimate is None or not roofline_operators(inputs.estimate):
        return None
    estimate = inputs.estimate
    peak, bandwidth = peak_of(estimate), bandwidth_of(estimate)
    limits = (
        [f"computes at most {three_digits(format_flops(peak, True))} in {estimate.workload.precision}"] if peak else []
    )
    known = estimate.cluster.accelerator.memory_bandwidth_bytes_per_s is not None
    source = "" if known else ", the rate of the fastest memory operator in its calibration"
    limits += [f"moves at most {three_digits(format_bandwidth(bandwidth))}{source}"] if bandwidth else []
    shown_s = sum(operator.time_s for operator in roofline_operators(estimate))
    total_s = sum(operator.time_s for operator in estimate.operators)
    caption = (
        "Each point is one planned operator; larger points take longer. "
        f"{f'The device {join_words(limits)}; that is the grey roof. ' if limits else ''}"
        f"{'Points under its slope wait for memory, points under its flat part compute. ' if len(limits) == 2 else ''}"
        f"The points make {format_percent(shown_s / total_s)} of the planned operator time; operators that only move "
        "data have no place here."
    )
    return make_panel("roofline", "Planned operators under the roofline", caption, figures.roofline(estimate))


def _top_operators(inputs: ReportInputs, content: Content) -> Panel | None:
    if inputs.measurement is None or not inputs.measurement.operators:
        return None
    measurement = inputs.measurement
    shown = figures.top_operators(measurement)
    share = _share_of_longest(inputs)
    caption = f"The longest operators of the framework in one step{share}. Colours are the terms they count towards."
    return make_panel("operators", "Longest measured operators", caption, shown)


def _share_of_longest(inputs: ReportInputs) -> str:
    measurement = inputs.measurement
    if measurement is None or not measurement.step_time_s:
        return ""
    total = sum(operator.time_s for operator in longest_operators(measurement))
    return f", {format_percent(total / measurement.step_time_s)} of the step time"
