"""Simulated showers as a step of a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from showers import Calorimeter, draw_energies, simulate
from torch import Tensor
from torch.utils.data import TensorDataset

from gnomon.component import DataGetter
from gnomon.errors import ConfigError

SCALE = 100.0
"""Cells hold up to some percent of the energy; their roots are of order 1 with this scale."""


class ShowerGetter(DataGetter):
    """Simulates showers and returns (train, validation, test), `counts` of each.

    A sample is float32 (2, layers, cells, cells). Channel 0 is sqrt(SCALE x cell energy / energy of the particle);
    channel 1 is the logarithm of that energy in every cell, -1 at `energies_gev[0]` and 1 at `energies_gev[1]`.
    """

    def __init__(
        self,
        calorimeter: Calorimeter,
        counts: tuple[int, int, int] = (8000, 1000, 1000),
        energies_gev: tuple[float, float] = (10.0, 100.0),
        seed: int = 0,
    ) -> None:
        if not 0.5 <= energies_gev[0] < energies_gev[1]:
            raise ConfigError(f"energies_gev={list(energies_gev)}; give a range that begins at 0.5 GeV or above.")
        if min(counts) < 1:
            raise ConfigError(f"counts={list(counts)}; give at least 1 shower for each of the three parts.")
        self.calorimeter = calorimeter
        self.counts = counts
        self.energies_gev = energies_gev
        self.seed = seed

    def execute(self) -> Any:
        """Return the datasets."""
        return tuple(self._part(index, count) for index, count in enumerate(self.counts))

    def _part(self, index: int, count: int) -> TensorDataset:
        generator = np.random.default_rng([self.seed, index])
        lowest, highest = self.energies_gev
        energies = draw_energies(count, lowest, highest, generator)
        showers = simulate(self.calorimeter, energies, generator) / energies[:, None, None, None]
        conditions = 2.0 * np.log(energies / lowest) / np.log(highest / lowest) - 1.0
        return TensorDataset(as_sample(torch.from_numpy(showers).float(), torch.from_numpy(conditions).float()))


def as_sample(shares: Tensor, conditions: Tensor) -> Tensor:
    """Return samples of shares of the energy (count, layers, cells, cells) and conditions (count,) from -1 to 1."""
    plane = conditions.view(-1, 1, 1, 1).expand_as(shares)
    return torch.stack([(SCALE * shares).sqrt(), plane], dim=1)


def shares_of(samples: Tensor) -> Tensor:
    """Return the shares of the energy in the cells of samples (count, 2, layers, cells, cells)."""
    return samples[:, 0] ** 2 / SCALE


def conditions_of(samples: Tensor) -> Tensor:
    """Return the conditions (count,)."""
    return samples[:, 1, 0, 0, 0]
