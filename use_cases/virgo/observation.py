"""A synthetic observation: segments of disturbed strain with signals in every other one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from detector import SAMPLE_RATE_HZ, WITNESSES, Array, Couplings, make_stretch
from signals import inspiral, sine_gaussian

SEGMENT_SAMPLES = 4 * SAMPLE_RATE_HZ
AMPLITUDE = 12.0  # of each signal: its signal-to-noise ratio in a detector that nothing disturbs
KINDS = ("none", "inspiral", "none", "burst")  # what segments hold, over and over


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Witnesses (segments, 3, samples), whitened strain, what coupled into it, and templates (segments, samples).

    A segment's strain has AMPLITUDE times its template, which has unit norm, or is zero where there is no signal.
    """

    witnesses: Array
    strain: Array
    coupled: Array
    templates: Array

    def segments(self, kind: str) -> slice:
        """Return the segments that hold `inspiral` or `burst`."""
        return slice(KINDS.index(kind), None, len(KINDS))


def observe(segments: int, seed: tuple[int, int]) -> Observation:
    """Return so many segments of 4 s; inspirals of 20 to 30 suns of chirp mass, bursts of 30 to 90 Hz."""
    generator = np.random.default_rng(seed)
    stretch = make_stretch(segments * SEGMENT_SAMPLES, Couplings(), generator)
    templates = np.stack([_template(KINDS[index % len(KINDS)], generator) for index in range(segments)])
    cut = (segments, SEGMENT_SAMPLES)
    witnesses = stretch.witnesses.reshape(len(WITNESSES), *cut).swapaxes(0, 1)
    return Observation(
        witnesses=witnesses,
        strain=stretch.strain.reshape(cut) + AMPLITUDE * templates,
        coupled=stretch.coupled.reshape(cut),
        templates=templates,
    )


def _template(kind: str, generator: np.random.Generator) -> Array:
    if kind == "inspiral":
        return inspiral(generator.uniform(20.0, 30.0), SEGMENT_SAMPLES)
    if kind == "burst":
        return sine_gaussian(generator.uniform(30.0, 90.0), generator.uniform(4.0, 12.0), SEGMENT_SAMPLES)
    return np.zeros(SEGMENT_SAMPLES)
