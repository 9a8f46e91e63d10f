"""Trains a generator of calorimeter showers for a given energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from dataloader import conditions_of
from networks import ShowerCritic, ShowerGenerator
from observables import compare, mean_showers
from pydantic import PositiveInt
from torch import Tensor, nn

from gnomon.train.agreement import on_main_rank
from gnomon.train.gan import GANConfig, GANTrainer


class ShowerConfig(GANConfig):
    """How long and how to train; `channels` is the width of both networks."""

    channels: PositiveInt = 16


class ShowerTrainer(GANTrainer):
    """A GAN on samples that carry their energy along: generator and critic see the pair of shower and energy."""

    config: ShowerConfig

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(ShowerConfig.from_mapping(config, "config"), self._make_generator, self._make_critic)

    def latent(self, count: int, generator: torch.Generator) -> Tensor:
        """Return normal numbers and, as the last one, a condition: uniform from -1 to 1 as in the data."""
        normal = torch.randn(count, self.config.latent_dim, generator=generator)
        return torch.cat([normal, 2.0 * torch.rand(count, 1, generator=generator) - 1.0], dim=1)

    def evaluate(self, batches: Iterable[Any] | None = None, prefix: str = "eval_") -> dict[str, float]:
        """Return the figures of `observables.compare` against the real samples, the same on every rank."""
        (real,) = self.create_evaluation_loader() if batches is None else batches
        figures = on_main_rank(self.strategy, lambda: compare(real, self.generate(len(real))))
        return {f"{prefix}{name}": value for name, value in figures.items()}

    def on_trained(self) -> None:
        """Compare with the test showers, and likewise the mean showers of the training data."""
        super().on_trained()
        if self._test is not None:
            real, train = self._chosen(self._test), torch.stack([sample for (sample,) in self._train])
            figures = compare(real, mean_showers(train, conditions_of(real)))
            self.report({f"test_baseline_{name}": value for name, value in figures.items()})

    def _make_generator(self) -> nn.Module:
        return ShowerGenerator(self.config.latent_dim, self._sample_shape[1:], self.config.channels)

    def _make_critic(self) -> nn.Module:
        return ShowerCritic(self._sample_shape[1:], self.config.channels, self._chosen(self._train))
