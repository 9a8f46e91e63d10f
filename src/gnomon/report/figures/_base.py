"""What all figures share: layout, label wrapping and reference lines. Text colours follow the page's theme."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gnomon.report.palette import REFERENCE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ROW_PX = 35
VALUE_PX = 72
"""Room to the right of bars for the value of the longest one."""
MOST_TICKS = 12
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def new_figure(x_title: str, *, y_title: str = "", height_px: float = 340) -> Figure:
    """Return an empty figure with the house layout; axis titles carry the units."""
    from plotly.graph_objects import Figure

    figure = Figure()
    figure.update_layout(
        template="none",
        height=round(height_px),
        font={"family": FONT, "size": 13},
        margin={"l": 8, "r": 16, "t": 10, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"family": FONT, "size": 13}},
        showlegend=False,  # the page writes the legend, which wraps on narrow screens
    )
    for update, title in ((figure.update_xaxes, x_title), (figure.update_yaxes, y_title)):
        update(title={"text": title, "standoff": 10, "font": {"size": 13}}, automargin=True, zeroline=False, ticks="")
    return figure


def new_bar_figure(x_title: str, rows: float) -> Figure:
    """Return an empty figure for horizontal bars, as tall as its rows, first row on top, without zoom."""
    figure = new_figure(x_title, height_px=70 + ROW_PX * rows)
    figure.update_layout(margin_r=VALUE_PX)
    figure.update_xaxes(fixedrange=True, tickangle=0, nticks=8)
    figure.update_yaxes(fixedrange=True, autorange="reversed", showgrid=False, ticklabelstandoff=6)
    return figure


def label_of(text: str, width: int = 18) -> str:
    """Return text that Plotly shows as it is, wrapped after spaces, underscores and colons."""
    lines = [""]
    for piece in re.findall(r"[^\s_:]*[\s_:]+|[^\s_:]+", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "<br>".join(html.escape(line.strip()) for line in lines)


def add_bars(figure: Figure, name: str, labels: list[str], values: list[float], texts: list[str], **style: Any) -> None:
    """Add one trace of horizontal bars; `texts` are the values with units, shown on hover."""
    figure.add_bar(
        orientation="h",
        name=name,
        y=labels,
        x=values,
        text=texts,
        textposition=style.pop("textposition", "none"),
        cliponaxis=False,
        hovertemplate=style.pop("hovertemplate", "%{y}, " + html.escape(name) + ": %{text}<extra></extra>"),
        **style,
    )


def add_end_labels(figure: Figure, labels: list[str], positions: list[float], texts: list[str]) -> None:
    """Write a text to the right of each bar (bars that float or stack would put theirs on a neighbour)."""
    figure.add_scatter(
        y=labels,
        x=positions,
        mode="text",
        text=[f"  {text}" for text in texts],
        textposition="middle right",
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )


def mark(figure: Figure, text: str, *, x: float | None = None, y: float | None = None) -> None:
    """Draw a dotted reference line at x or y with its name beside it."""
    line = {"color": REFERENCE, "width": 1.5, "dash": "dot"}
    if x is not None:
        figure.add_vline(x=x, line=line, annotation={"text": text, "yanchor": "bottom"}, annotation_position="top left")
    if y is not None:
        figure.add_hline(y=y, line=line, annotation={"text": text}, annotation_position="top right")


def log_axis(values: Sequence[float], marked: Sequence[float] | None = None) -> dict[str, Any]:
    """Return the settings of a logarithmic axis around values, marked at 1, 2 and 5, or at powers of ten of many.

    marked: other places to mark; those that would lie on one another are left out
    """
    low, high = math.log10(min(values)), math.log10(max(values))
    room = 0.06 * (high - low) or 0.1
    steps = range(1, 10) if high - low < 0.7 else (1, 2, 5) if high - low < 2.5 else (1,)
    places = marked or [m * 10.0**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for m in steps]
    shown = [p for p in places if low - room <= math.log10(p) <= high + room]
    if marked is None and len(shown) < 2:
        shown = [min(values), max(values)]
    while len(shown) > MOST_TICKS:
        shown = shown[::-2][::-1]
    texts = [_short(place) for place in shown]
    return {"type": "log", "range": [low - room, high + room], "tickvals": shown, "ticktext": texts}


def _short(value: float) -> str:
    for size, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.4g}{suffix}"
    return f"{value:.4g}"


def largest(values: Sequence[float | None]) -> float:
    """Return the largest value that is known, or 0."""
    return max((value for value in values if value is not None), default=0.0)
