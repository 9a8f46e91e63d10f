"""Looks for the injected signals before and after cleaning, with a matched filter."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detector import SAMPLE_RATE_HZ, Array
from observation import AMPLITUDE, KINDS, Observation, observe
from signals import HIGHEST_HZ, LOWEST_HZ
from torch import nn

from gnomon.component import Component

TAPER = 0.125  # of a segment, at each end


class SignalSearch(Component):
    """Cleans an observation that no training has seen and returns what a matched filter finds in it.

    For `inspiral` and `burst`: the mean signal-to-noise ratio before and after, its gain, and the relative error of
    the amplitude after cleaning, as a mean over all signals.
    """

    def __init__(self, segments: int = 128, seed: int = 0) -> None:
        self.segments = segments
        self.seed = seed

    def execute(self, train: Any, validation: Any, test: Any, model: nn.Module) -> dict[str, dict[str, float]]:
        """Return {kind: figures}; of the inputs only the model is used."""
        observation = observe(self.segments, (self.seed, 3))  # 0 to 2 are the parts of the getter
        return compare(observation, observation.strain - predict(model, observation.witnesses))


@torch.no_grad()
def predict(model: nn.Module, witnesses: Array) -> Array:
    """Return the noise (segments, samples) that a model expects from witnesses (segments, channels, samples)."""
    device = next(model.parameters()).device
    model.eval()
    batches = torch.from_numpy(witnesses.astype(np.float32)).split(32)
    return torch.cat([model(batch.to(device)).cpu() for batch in batches]).double().numpy()


def compare(observation: Observation, cleaned: Array) -> dict[str, dict[str, float]]:
    """Return the figures of each kind of signal in the observation and in its cleaned strain."""
    figures = {}
    for kind in ("inspiral", "burst"):
        chosen = observation.segments(kind)
        templates = observation.templates[chosen]
        before, _ = _filter(observation.strain, chosen, templates)
        after, amplitudes = _filter(cleaned, chosen, templates)
        figures[kind] = {
            "snr_before": float(before.mean()),
            "snr_after": float(after.mean()),
            "snr_gain": float(after.mean() / before.mean()),
            "amplitude_bias": float(amplitudes.mean() / AMPLITUDE - 1.0),
        }
    return figures


def _filter(strain: Array, chosen: slice, templates: Array) -> tuple[Array, Array]:
    """Return the signal-to-noise ratios and the amplitudes of the templates in the chosen segments.

    The filter is the optimal one for the noise as it is: its power is the mean over a half of the segments without
    signals, and the deviation of the filter's output is measured in the other half.
    """
    quiet = [index for index, kind in enumerate(KINDS) if kind == "none"]
    spectra, shapes = _spectra(strain), _spectra(templates)
    power = (np.abs(spectra[quiet[0] :: len(KINDS)]) ** 2).mean(0)
    noise = spectra[quiet[1] :: len(KINDS)]
    weighted = shapes.conj() / power
    outputs = (spectra[chosen] * weighted).sum(1).real
    deviations = np.sqrt(((weighted @ noise.T).real ** 2).mean(1))
    return outputs / deviations, outputs / (shapes * weighted).sum(1).real


def _spectra(series: Array) -> np.ndarray:
    """Return the spectra (segments, frequencies) of tapered segments, in the band of the signals."""
    samples = series.shape[1]
    edge = int(TAPER * samples)
    rise = np.sin(0.5 * np.pi * (np.arange(edge) + 0.5) / edge) ** 2
    window = np.concatenate([rise, np.ones(samples - 2 * edge), rise[::-1]])
    frequency = np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE_HZ)
    band = (frequency >= LOWEST_HZ) & (frequency <= HIGHEST_HZ)
    return np.fft.rfft(series * window, axis=1)[:, band]
