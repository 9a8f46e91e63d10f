"""Trains a flow to sample lattice fields with the weight exp(-S)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from action import Phi4
from dataloader import NoiseLoader
from flow import Flow
from pydantic import PositiveInt
from torch import Tensor, nn
from torchmetrics import Metric

from gnomon.errors import ConfigError
from gnomon.train.config import TrainingConfig
from gnomon.train.trainer import Trainer


class FlowConfig(TrainingConfig):
    """How to train the flow; `batch` fields per optimizer step, over all ranks."""

    batch: PositiveInt = 256
    layers: PositiveInt = 8
    hidden: PositiveInt = 8
    eval_samples: PositiveInt = 8192
    action: Phi4 = Phi4()


class EffectiveSampleSize(Metric):
    """(sum w)^2 / (N sum w^2) of importance weights w = exp(-S) / q: 1 for a perfect flow, 1/N for a useless one."""

    log_weights: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("log_weights", [], dist_reduce_fx="cat")

    def update(self, log_weights: Tensor) -> None:
        """Take the logarithms of weights (batch,)."""
        self.log_weights.append(log_weights)

    def compute(self) -> Tensor:
        """Return the share of effective samples."""
        weights = self.log_weights
        values = torch.cat(weights) if isinstance(weights, list) else weights
        return torch.exp(2 * values.logsumexp(0) - (2 * values).logsumexp(0)) / len(values)


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
        return self._noise(self.config.batch, self.config.accumulation, self.config.seed)

    def create_evaluation_loader(self) -> Any:
        """Return other noise, the same for each evaluation."""
        batches = self.config.eval_samples // self.config.batch
        return islice(self._noise(self.config.batch, 1, self.config.seed + 1), max(1, batches))

    def create_metrics(self) -> dict[str, Metric]:
        """Return the effective sample size."""
        return {"ess": EffectiveSampleSize()}

    def training_step(self, batch: Tensor) -> Tensor:
        """Return the mean of log q + S, which is the free energy once the flow is perfect."""
        phi, log_q = self.model(batch)
        return (log_q + self.config.action(phi)).mean()

    def validation_step(self, batch: Tensor) -> Tensor:
        """Return the same, and add the weights of the fields."""
        phi, log_q = self.model(batch)
        negative_log_weights = log_q + self.config.action(phi)
        self.metrics["ess"].update(-negative_log_weights)
        return negative_log_weights.mean()

    def samples_per_step(self) -> int:
        """Return the fields of a step."""
        return self.config.batch

    def identity(self) -> dict[str, Any]:
        """Return seed, batch, network and action."""
        names = ("batch", "layers", "hidden")
        settings = {name: getattr(self.config, name) for name in names}
        return {**super().identity(), **settings, "action": self.config.action.to_mapping()}

    def _noise(self, batch: int, accumulation: int, seed: int) -> NoiseLoader:
        shard, shards = self.strategy.data_shard
        if batch % (shards * accumulation):
            raise ConfigError(f"batch={batch} does not divide by {shards} rank(s) x accumulation={accumulation}.")
        return NoiseLoader(self.config.action.size, batch, shard, shards, accumulation, seed)
