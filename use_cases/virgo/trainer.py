"""Learns the noise that witnesses explain, by which the strain is cleaned."""

from __future__ import annotations

from typing import Any

import torch
from detector import SAMPLE_RATE_HZ
from torch import Tensor
from torchmetrics import Metric

from gnomon.train.supervised import ModelSource, SupervisedTrainer

BAND_HZ = (20.0, 100.0)


class NoiseRatio(Metric):
    """The amplitude (root of the power) of the strain between 20 and 100 Hz after cleaning, over that before."""

    before: Tensor
    after: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("before", "after"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, strain: Tensor) -> None:
        """Take the predicted noise and the strain, each (batch, samples)."""
        self.before += _power(strain)
        self.after += _power(strain - predicted)

    def compute(self) -> Tensor:
        """Return the ratio: 1 where nothing was gained."""
        return (self.after / self.before).sqrt()


class NoiseTrainer(SupervisedTrainer):
    """Predicts the strain from the witnesses; as they know nothing of signals, it learns the disturbances alone."""

    def __init__(self, config: Any, model: ModelSource) -> None:
        super().__init__(config, model, loss="mse", optimizer="adam")

    def create_metrics(self) -> dict[str, Metric]:
        """Return the ratio of amplitudes as `noise_ratio`."""
        return {"noise_ratio": NoiseRatio()}


def _power(strain: Tensor) -> Tensor:
    """Return the sum over a batch of the power in the band, through a Hann window."""
    samples = strain.shape[-1]
    window = torch.hann_window(samples, dtype=torch.float64, device=strain.device)
    spectrum = torch.fft.rfft(strain.double() * window)
    frequency = torch.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE_HZ, device=strain.device)
    band = (frequency >= BAND_HZ[0]) & (frequency <= BAND_HZ[1])
    return (spectrum[:, band].abs() ** 2).sum()
