"""What importance sampling with a flow is worth, and what it says about the lattice."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class WeightedFields(Metric):
    """Collects log w of fields with weights w = exp(-S) / q, and one observable of each."""

    log_weights: list[Tensor]
    observables: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("log_weights", [], dist_reduce_fx="cat")
        self.add_state("observables", [], dist_reduce_fx="cat")

    def update(self, log_weights: Tensor, observables: Tensor) -> None:
        """Take log w and observables, each (batch,)."""
        self.log_weights.append(log_weights)
        self.observables.append(observables)

    def _collected(self) -> tuple[Tensor, Tensor]:
        """Return weights that sum to 1 and the observables, of all ranks once they are synchronised."""
        both = self.log_weights, self.observables
        log_weights, observables = (torch.cat(part) if isinstance(part, list) else part for part in both)
        return torch.softmax(log_weights.double(), 0), observables.double()


class EffectiveSampleSize(WeightedFields):
    """(sum w)^2 / (N sum w^2): 1 for a perfect flow, 1/N for a useless one."""

    def compute(self) -> Tensor:
        """Return the share of effective samples."""
        weights, _ = self._collected()
        return 1.0 / (len(weights) * (weights**2).sum())


class ReweightedMean(WeightedFields):
    """The mean of the observable under exp(-S), whatever the flow's own density is."""

    def compute(self) -> Tensor:
        """Return sum w x / sum w."""
        weights, observables = self._collected()
        return (weights * observables).sum()


class ReweightedError(WeightedFields):
    """The standard error of `ReweightedMean`, to first order in 1/N (the delta method)."""

    def compute(self) -> Tensor:
        """Return the square root of sum w^2 (x - mean)^2 / (sum w)^2."""
        weights, observables = self._collected()
        deviation = observables - (weights * observables).sum()
        return (weights**2 * deviation**2).sum().sqrt()
