"""Colours of the figures: after Okabe and Ito (2008), distinguishable with every common colour blindness.

The two sides are a little lighter than theirs, so that they stand out on white and on black.
"""

from __future__ import annotations

PREDICTED = "#1780C4"
MEASURED = "#D55E00"
MORE = "#E69F00"
LESS = "#009E73"
REFERENCE = "#808890"

SERIES = ("#1780C4", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#808890")
"""Lines that are neither predicted nor measured, from the first on."""

TERM_COLOURS = {
    "matmul_s": "#0072B2",
    "attention_s": "#56B4E9",
    "elementwise_s": "#009E73",
    "embedding_head_s": "#E69F00",
    "optimizer_s": "#CC79A7",
    "communication_s": "#D55E00",
    "data_s": "#F0E442",
    "idle_s": "#999999",
    "weights_bytes": "#0072B2",
    "gradients_bytes": "#56B4E9",
    "optimizer_bytes": "#CC79A7",
    "activations_bytes": "#E69F00",
    "communication_bytes": "#D55E00",
    "framework_bytes": "#999999",
}


def colour_of(term: str) -> str:
    """Return the colour of a time or memory term; grey for anything else."""
    return TERM_COLOURS.get(term, REFERENCE)
