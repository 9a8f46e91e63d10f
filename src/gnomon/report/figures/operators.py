"""Operators: planned ones under the device's roof, and the longest of the measured ones."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from gnomon.plan.estimate import Estimate, OperatorEstimate
from gnomon.profile.measurement import Measurement, OperatorMeasurement
from gnomon.report.figures._base import add_bars, label_of, log_axis, new_bar_figure, new_figure
from gnomon.report.palette import REFERENCE, colour_of
from gnomon.report.words import three_digits
from gnomon.spec import TIME_TERMS
from gnomon.units import format_bandwidth, format_count, format_flops, format_seconds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

NUM_LONGEST = 12
LABEL_CHARACTERS = 24
LARGE_BYTES = 32 * 2**20


def roofline(estimate: Estimate) -> Figure:
    """Return planned operators as GFLOP/s over arithmetic intensity (FLOP/byte), under the device's roof."""
    points = roofline_operators(estimate)
    fastest = max((operator.flops / operator.time_s for operator in points), default=0.0)
    unit, scale = ("T", 1e12) if fastest > 1e13 else ("G", 1e9)
    figure = new_figure("arithmetic intensity (FLOP per byte)", y_title=f"{unit}FLOP/s", height_px=420)
    longest = max((operator.time_s for operator in points), default=1.0)
    for term, label in TIME_TERMS.items():
        chosen = [operator for operator in points if operator.term == term]
        if chosen:
            figure.add_scatter(
                name=label,
                x=[_intensity(operator) for operator in chosen],
                y=[operator.flops / operator.time_s / scale for operator in chosen],
                mode="markers",
                marker={
                    "color": colour_of(term),
                    "size": [8 + 18 * (operator.time_s / longest) ** 0.5 for operator in chosen],
                    "line": {"width": 1, "color": "rgba(0,0,0,0.5)"},
                    "opacity": 0.85,
                },
                text=[_hover(operator) for operator in chosen],
                hovertemplate="%{text}<extra></extra>",
            )
    if points:
        _draw_roof(figure, estimate, [_intensity(operator) for operator in points], scale)
    for update, axis in ((figure.update_xaxes, "x"), (figure.update_yaxes, "y")):
        values = [value for trace in figure.data for value in trace[axis]]
        if values:
            update(**log_axis(values))
    return figure


def roofline_operators(estimate: Estimate) -> list[OperatorEstimate]:
    """Return the planned operators that have a place on a logarithmic roofline."""
    return [op for op in estimate.operators if op.flops and op.traffic_bytes and op.time_s]


def top_operators(measurement: Measurement) -> Figure:
    """Return the measured operators that took longest, ms per step, coloured by their term."""
    operators = longest_operators(measurement)
    labels = dict(zip(operators, _unique_labels(operators), strict=True))
    figure = new_bar_figure("time per step (ms)", rows=1.2 * len(operators))
    for term, label in TIME_TERMS.items():
        chosen = [operator for operator in operators if operator.term == term]
        if chosen:
            add_bars(
                figure,
                label,
                [labels[operator] for operator in chosen],
                [1e3 * operator.time_s for operator in chosen],
                [format_seconds(operator.time_s) for operator in chosen],
                textposition="outside",
                marker={"color": colour_of(term)},
                customdata=[f"{operator.calls:,.0f}" for operator in chosen],
                hovertemplate="%{y}: %{text} in %{customdata} calls<extra></extra>",
            )
    longest = 1e3 * max((operator.time_s for operator in operators), default=1e-3)
    figure.update_xaxes(range=[0, longest])
    figure.update_yaxes(categoryorder="array", categoryarray=list(labels.values()))
    figure.update_layout(barmode="relative", bargap=0.3)
    return figure


def longest_operators(measurement: Measurement) -> list[OperatorMeasurement]:
    """Return the measured operators that took longest, in falling order."""
    return sorted(measurement.operators, key=lambda operator: -operator.time_s)[:NUM_LONGEST]


def _unique_labels(operators: list[OperatorMeasurement]) -> list[str]:
    """Return labels of at most two lines that tell apart one operator under two terms and names that look alike."""
    counts = Counter(operator.name for operator in operators)
    seen: Counter[str] = Counter()
    labels = []
    for operator in operators:
        term = f" ({TIME_TERMS.get(operator.term, operator.term)})" if counts[operator.name] > 1 else ""
        label = _two_lines(operator.name + term)
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return labels


def _two_lines(name: str) -> str:
    """Return a name over at most two lines; a longer one loses its middle, because the ends tell operators apart."""
    label = label_of(name, LABEL_CHARACTERS)
    if label.count("<br>") <= 1:
        return label
    return f"{label_of(name[: LABEL_CHARACTERS - 1], 99)}…<br>{label_of(name[-LABEL_CHARACTERS:], 99)}"


def _intensity(operator: OperatorEstimate) -> float:
    return operator.flops / operator.traffic_bytes


def _hover(operator: OperatorEstimate) -> str:
    rate = three_digits(format_flops(operator.flops / operator.time_s, per_second=True))
    return (
        f"<b>{label_of(operator.name, 40)}</b>, {operator.phase}<br>{format_seconds(operator.time_s)} per step "
        f"in {operator.calls:,.0f} calls<br>{rate}, "
        f"{format_count(_intensity(operator))} FLOP/byte, {operator.bound}-bound"
    )


def bandwidth_of(estimate: Estimate) -> float | None:
    """Return the device's memory bandwidth in bytes/s: the vendor's, else the fastest large memory operator's."""
    cluster = estimate.cluster
    if cluster.accelerator.memory_bandwidth_bytes_per_s or cluster.efficiency is None:
        return cluster.accelerator.memory_bandwidth_bytes_per_s
    curves = cluster.efficiency.memory.values()
    return max((curve.rate[-1] for curve in curves if curve.size[-1] >= LARGE_BYTES), default=None)


def peak_of(estimate: Estimate) -> float | None:
    """Return the device's peak in FLOP/s at the precision of the workload."""
    return estimate.cluster.accelerator.peak(estimate.workload.precision)


def _draw_roof(figure: Figure, estimate: Estimate, intensities: list[float], scale: float) -> None:
    """Draw the lower of memory bandwidth times intensity and peak FLOP/s, as far as both are known."""
    peak, bandwidth = peak_of(estimate), bandwidth_of(estimate)
    ridge = [peak / bandwidth] if peak and bandwidth else []
    around = [*intensities, *ridge]
    corners = [min(around) / 2, *ridge, max(around) * 2]
    limits = [min([limit for limit in (peak, bandwidth and bandwidth * x) if limit], default=None) for x in corners]
    if all(limits):
        figure.add_scatter(
            name=_roof_name(peak, bandwidth),
            x=corners,
            y=[limit / scale for limit in limits if limit],
            mode="lines",
            line={"color": REFERENCE, "width": 2},
            hoverinfo="skip",
        )


def _roof_name(peak: float | None, bandwidth: float | None) -> str:
    parts = [three_digits(format_flops(peak, per_second=True))] if peak else []
    parts += [three_digits(format_bandwidth(bandwidth))] if bandwidth else []
    return f"roof: {' and '.join(parts)}"
