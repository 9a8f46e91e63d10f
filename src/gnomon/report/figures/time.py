"""Step time: how the gap is made up, and the terms side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gnomon.report.comparison import Comparison, Term
from gnomon.report.figures._base import add_bars, add_end_labels, label_of, largest, new_bar_figure
from gnomon.report.palette import LESS, MEASURED, MORE, PREDICTED, REFERENCE
from gnomon.report.words import format_difference, format_value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def waterfall(comparison: Comparison) -> Figure:
    """Return the step time from predicted to measured in ms, one floating bar per term's difference."""
    step = next(term for term in comparison.headline if term.name == "step_time_s")
    changes = [term for term in comparison.time if term.difference]
    labels = ["predicted", *(label_of(term.label) for term in changes), "measured"]
    differences = [1e3 * (term.difference or 0.0) for term in changes]
    start, end = 1e3 * (step.predicted or 0.0), 1e3 * (step.measured or 0.0)
    levels = _running_levels(start, differences)
    bases, lengths = [0.0, *levels[:-1], 0.0], [start, *differences, end]
    texts = [
        format_value(step.predicted, "s"),
        *(format_difference(term.difference, "s") for term in changes),
        format_value(step.measured, "s"),
    ]
    colours = [PREDICTED, *(MORE if value > 0 else LESS for value in differences), MEASURED]
    figure = new_bar_figure("step time (ms)", rows=len(labels))
    add_bars(
        figure,
        "step time",
        labels,
        lengths,
        texts,
        base=bases,
        marker={"color": colours},
        hovertemplate="%{y}: %{text}<extra></extra>",
        showlegend=False,
    )
    tops = [max(base, base + length) for base, length in zip(bases, lengths, strict=True)]
    add_end_labels(figure, labels, tops, texts)
    _connect(figure, labels, levels)
    figure.update_xaxes(range=_zoomed_range([*levels, end]))
    figure.update_layout(bargap=0.35)
    return figure


def _running_levels(start: float, differences: list[float]) -> list[float]:
    levels = [start]
    for difference in differences:
        levels.append(levels[-1] + difference)
    return levels


def _connect(figure: Figure, labels: list[str], levels: list[float]) -> None:
    """Join each bar's end to the start of the next with a thin line."""
    xs: list[float | None] = []
    ys: list[str | None] = []
    for index, level in enumerate(levels):
        xs += [level, level, None]
        ys += [labels[index], labels[index + 1], None]
    line = {"color": REFERENCE, "width": 1}
    figure.add_scatter(x=xs, y=ys, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _zoomed_range(levels: list[float]) -> list[float]:
    """Return an axis on which the differences fill most of the width; from zero when that costs little."""
    low, high = min(levels), max(levels)
    span = max(high - low, 0.02 * high)
    left = low - 0.6 * span
    return [left if left > 0.4 * low else 0.0, high]


def time_bars(terms: Sequence[Term]) -> Figure:
    """Return predicted and measured ms of each time term side by side; terms that are zero are left out."""
    shown = [term for term in terms if term.predicted or term.measured]
    labels = [label_of(term.label) for term in shown]
    figure = new_bar_figure("time per step (ms)", rows=1.45 * len(shown))
    for side, colour in (("predicted", PREDICTED), ("measured", MEASURED)):
        values = [getattr(term, side) for term in shown]
        if any(value is not None for value in values):
            add_bars(
                figure,
                side,
                labels,
                [1e3 * (value or 0.0) for value in values],
                [format_value(value, "s") for value in values],
                textposition="outside",
                marker={"color": colour},
            )
    longest = 1e3 * largest([value for term in shown for value in (term.predicted, term.measured)])
    figure.update_xaxes(range=[0, longest or 1.0])
    figure.update_layout(barmode="group", bargap=0.3)
    return figure
