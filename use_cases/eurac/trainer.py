"""Forecasts discharge and soil moisture of a catchment from its weather."""

from __future__ import annotations

from typing import Any

import torch
from dataloader import TARGETS
from torch import Tensor
from torchmetrics import Metric

from gnomon.train.supervised import ModelSource, SupervisedTrainer


class NashSutcliffe(Metric):
    """1 - sum (predicted - observed)^2 / sum (observed - mean observed)^2 of one target.

    1 is perfect; 0 is no better than always forecasting the mean (Nash and Sutcliffe 1970,
    doi:10.1016/0022-1694(70)90255-6).
    """

    count: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor

    def __init__(self, target: int) -> None:
        super().__init__()
        self._target = target
        for name in ("count", "total", "squares", "errors"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, observed: Tensor) -> None:
        """Take predictions and observations (..., targets)."""
        predicted, observed = (values[..., self._target].double() for values in (predicted, observed))
        self.count += observed.numel()
        self.total += observed.sum()
        self.squares += (observed**2).sum()
        self.errors += ((predicted - observed) ** 2).sum()

    def compute(self) -> Tensor:
        """Return the efficiency over everything that was taken."""
        return 1.0 - self.errors / (self.squares - self.total**2 / self.count)


class CatchmentTrainer(SupervisedTrainer):
    """A supervised trainer whose evaluation also has the efficiency of each target, as nse_<target>."""

    def __init__(self, config: Any, model: ModelSource) -> None:
        super().__init__(config, model, loss="mse", optimizer="adam")

    def create_metrics(self) -> dict[str, Metric]:
        """Return the efficiencies."""
        return {f"nse_{name}": NashSutcliffe(index) for index, name in enumerate(TARGETS)}
