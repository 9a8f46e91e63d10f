"""Figures of the report: pure functions from nouns to Plotly figures. Plotly is imported when one is drawn."""

from gnomon.report.figures.memory import memory_bars
from gnomon.report.figures.operators import roofline, top_operators
from gnomon.report.figures.time import time_bars, waterfall
from gnomon.report.figures.training import loss_curve, step_time_limit, step_times

__all__ = [
    "loss_curve",
    "memory_bars",
    "roofline",
    "step_time_limit",
    "step_times",
    "time_bars",
    "top_operators",
    "waterfall",
]
