"""Forecasts the discharge of a catchment with an LSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from gnomon.train.supervised import SupervisedTrainer


class NashSutcliffe(Metric):
    """1 - sum (predicted - observed)^2 / sum (observed - mean observed)^2 (Nash and Sutcliffe 1970).

    1 is perfect; 0 is no better than always forecasting the mean.
    """

    count: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("count", "total", "squares", "errors"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor) -> None:
        """Take predictions and observations of one shape."""
        predicted, observed = predicted.double(), observed.double()
        self.count += observed.numel()
        self.total += observed.sum()
        self.squares += (observed**2).sum()
        self.errors += ((predicted - observed) ** 2).sum()

    def compute(self) -> Tensor:
        """Return the efficiency over everything that was taken."""
        return 1.0 - self.errors / (self.squares - self.total**2 / self.count)


class DischargeTrainer(SupervisedTrainer):
    """A supervised trainer whose evaluation also has the efficiency of Nash and Sutcliffe."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model, loss="mse", optimizer="adam")

    def create_metrics(self) -> dict[str, Metric]:
        """Return the efficiency as `nse`."""
        return {"nse": NashSutcliffe()}
