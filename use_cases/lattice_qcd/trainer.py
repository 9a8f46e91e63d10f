"""Trains a flow to sample lattice fields with the weight exp(-S)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Self

import torch
from action import Phi4
from dataloader import NoiseLoader
from flow import Flow
from metrics import EffectiveSampleSize, ReweightedError, ReweightedMean
from pydantic import PositiveInt, model_validator
from torch import Tensor, nn
from torchmetrics import Metric

from gnomon.errors import ConfigError
from gnomon.train.config import TrainingConfig
from gnomon.train.trainer import Trainer

EVALUATION_STEP = 2**31  # evaluations draw their noise from here on, where training never arrives


class FlowConfig(TrainingConfig):
    """How to train the flow; `batch` fields per optimizer step, over all ranks."""

    batch: PositiveInt = 256
    layers: PositiveInt = 8
    hidden: PositiveInt = 16
    eval_samples: PositiveInt = 8192
    eval_batches: PositiveInt | None = None
    action: Phi4 = Phi4()

    @model_validator(mode="after")
    def _check_samples(self) -> Self:
        if self.eval_samples % self.batch:
            raise ValueError(f"eval_samples={self.eval_samples} is not a multiple of batch={self.batch}")
        return self


class FlowTrainer(Trainer):
    """Minimises the reverse Kullback-Leibler divergence: the mean of log q(phi) + S(phi) over the flow's own fields."""

    config: FlowConfig

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(FlowConfig.from_mapping(dict(config), "config"))

    def create_model(self) -> nn.Module:
        """Return the flow."""
        return Flow(self.config.action.size, self.config.layers, self.config.hidden)

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.module.parameters(), lr=self.config.learning_rate)

    def create_loader(self) -> NoiseLoader:
        """Return this rank's noise."""
        return self._noise(self.config.accumulation)

    def create_evaluation_loader(self) -> Iterable[Tensor]:
        """Return other noise, the same for each evaluation."""
        return islice(self._noise(1, EVALUATION_STEP), self.config.eval_samples // self.config.batch)

    def create_metrics(self) -> dict[str, Metric]:
        """Return the effective sample size, and the mean of phi^2 per site with its standard error."""
        return {"ess": EffectiveSampleSize(), "phi2": ReweightedMean(), "phi2_error": ReweightedError()}

    def training_step(self, batch: Tensor) -> Tensor:
        """Return the mean of log q + S: minus the logarithm of the partition function, once the flow is perfect."""
        phi, log_q = self.model(batch)
        return (log_q + self.config.action(phi)).mean()

    def validation_step(self, batch: Tensor) -> Tensor:
        """Return the same, and add the fields to the metrics."""
        phi, log_q = self.model(batch)
        log_weights = -log_q - self.config.action(phi)
        for metric in self.metrics.values():
            metric.update(log_weights, (phi**2).mean((1, 2)))
        return -log_weights.mean()

    def samples_per_step(self) -> int:
        """Return the fields of a step."""
        return self.config.batch

    def identity(self) -> dict[str, Any]:
        """Return seed, batch, network and action."""
        names = ("batch", "layers", "hidden")
        settings = {name: getattr(self.config, name) for name in names}
        return {**super().identity(), **settings, "action": self.config.action.to_mapping()}

    def _noise(self, accumulation: int, first_step: int = 0) -> NoiseLoader:
        shard, shards = self.strategy.data_shard
        batch = self.config.batch
        if batch % (shards * accumulation):
            raise ConfigError(
                f"batch={batch} does not divide by {shards} rank(s) x accumulation={accumulation}. "
                f"Set batch to a multiple of {shards * accumulation}."
            )
        return NoiseLoader(
            self.config.action.size,
            batch,
            shard=shard,
            shards=shards,
            accumulation=accumulation,
            seed=self.config.seed,
            first_step=first_step,
        )
