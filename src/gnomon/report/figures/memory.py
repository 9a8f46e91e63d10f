"""Peak memory, stacked by term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gnomon.report.comparison import Term
from gnomon.report.figures._base import add_bars, add_end_labels, mark, new_bar_figure
from gnomon.report.palette import colour_of
from gnomon.report.words import format_value

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CAPACITY_IN_REACH = 2.5
"""A device larger than this multiple of the peak is named in the caption; its line would squash the bars."""


def memory_bars(terms: Sequence[Term], capacity_bytes: float | None = None) -> Figure:
    """Return the memory terms in MiB or GiB stacked per side, with the device's capacity when it is in reach."""
    sides = [side for side in ("predicted", "measured") if any(getattr(term, side) is not None for term in terms)]
    totals = [sum(getattr(term, side) or 0.0 for term in terms) for side in sides]
    peak = max(totals, default=0.0)
    unit, scale = ("GiB", 2**30) if peak >= 2**30 else ("MiB", 2**20)
    figure = new_bar_figure(f"peak memory of one rank ({unit})", rows=1.6 * len(sides))
    for term in terms:
        values = [getattr(term, side) or 0.0 for side in sides]
        if any(values):
            add_bars(
                figure,
                term.label,
                sides,
                [value / scale for value in values],
                [format_value(value, "bytes") for value in values],
                marker={"color": colour_of(term.name), "line": {"width": 1, "color": "rgba(255,255,255,0.7)"}},
            )
    add_end_labels(
        figure, sides, [total / scale for total in totals], [format_value(total, "bytes") for total in totals]
    )
    reach = peak
    if capacity_bytes is not None and capacity_bytes <= CAPACITY_IN_REACH * peak:
        reach = max(reach, capacity_bytes)
        figure.update_layout(margin_t=28)
        mark(figure, f"device has {format_value(capacity_bytes, 'bytes')}", x=capacity_bytes / scale)
    figure.update_xaxes(range=[0, reach / scale or 1.0])
    figure.update_layout(barmode="relative", bargap=0.35)
    return figure
