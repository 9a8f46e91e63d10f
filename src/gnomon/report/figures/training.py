"""The run over its steps: loss and step time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from gnomon.report.figures._base import mark, new_figure
from gnomon.report.palette import MEASURED, PREDICTED, REFERENCE
from gnomon.units import format_seconds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Row = dict[str, Any]


def loss_curve(rows: Iterable[Row], vocab_size: int | None = None) -> Figure:
    """Return training and evaluation loss in nats per token over optimizer steps."""
    rows = list(rows)
    training = [row for row in rows if row.get("loss") is not None]
    evaluation = [row for row in rows if row.get("eval_loss") is not None]
    figure = new_figure("optimizer step", y_title="loss (nats per token)")
    figure.add_scatter(
        name="training",
        x=[row["step"] for row in training],
        y=[row["loss"] for row in training],
        mode="lines+markers" if len(training) < 40 else "lines",
        line={"color": PREDICTED, "width": 2},
        customdata=[f"{row.get('tokens', 0):,}" for row in training],
        hovertemplate="step %{x}, %{customdata} tokens<br>training loss %{y:.3f}<extra></extra>",
    )
    if evaluation:
        figure.add_scatter(
            name="evaluation",
            x=[row["step"] for row in evaluation],
            y=[row["eval_loss"] for row in evaluation],
            mode="lines+markers",
            line={"color": MEASURED, "width": 2, "dash": "dot"},
            marker={"size": 9, "symbol": "diamond"},
            hovertemplate="step %{x}<br>evaluation loss %{y:.3f}<extra></extra>",
        )
    if vocab_size:
        mark(figure, f"uniform guess over {vocab_size:,} tokens", y=math.log(vocab_size))
    return figure


def step_times(rows: Iterable[Row], predicted_s: float | None = None, measured_s: float | None = None) -> Figure:
    """Return step time in ms over optimizer steps, with prediction and measured median as lines."""
    training = [row for row in rows if row.get("step_time_s") is not None]
    values = [1e3 * row["step_time_s"] for row in training]
    figure = new_figure("optimizer step", y_title="step time (ms)")
    figure.add_scatter(
        name="step time",
        x=[row["step"] for row in training],
        y=values,
        mode="lines+markers",
        line={"color": REFERENCE, "width": 1},
        marker={"size": 6, "color": REFERENCE},
        hovertemplate="step %{x}<br>%{y:.1f} ms<extra></extra>",
    )
    lines = (("predicted", predicted_s, PREDICTED, "dash"), ("measured", measured_s, MEASURED, "solid"))
    for name, value_s, colour, dash in lines:
        if value_s is not None and training:
            figure.add_scatter(
                name=f"{name} {format_seconds(value_s)}",
                x=[training[0]["step"], training[-1]["step"]],
                y=[1e3 * value_s] * 2,
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                hoverinfo="skip",
            )
    figure.update_yaxes(range=[0, step_time_limit(values, predicted_s)])
    return figure


def step_time_limit(values_ms: Sequence[float], predicted_s: float | None = None) -> float:
    """Return the top of the step-time axis in ms: a slow first step must not flatten the rest."""
    usual = max([*sorted(values_ms)[: math.ceil(0.9 * len(values_ms))], 1e3 * (predicted_s or 0.0)])
    return min(1.15 * max([*values_ms, usual]), 1.4 * usual) or 1.0
