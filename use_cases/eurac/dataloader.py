"""Windows of weather and the discharge of the day after them, as a step of a pipeline."""

from __future__ import annotations

import numpy as np
import torch
from bucket import draw_catchment, draw_weather, simulate
from torch.utils.data import TensorDataset

from gnomon.component import DataGetter

WARM_UP_DAYS = 365


class BucketGetter(DataGetter):
    """Makes a synthetic catchment and returns its train, validation and test parts, in the order of time.

    Inputs are float32 (window_days, 3): rain, temperature and potential evapotranspiration of the days up to today,
    standardised with the means and deviations of the training part. The target is today's discharge, standardised
    likewise. The first year is left out, in which the stores fill.
    """

    def __init__(self, years: int = 20, window_days: int = 120, seed: int = 0) -> None:
        self.years = years
        self.window_days = window_days
        self.seed = seed

    def execute(self) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
        """Return the datasets: 70, 15 and 15 percent of the days."""
        generator = np.random.default_rng(self.seed)
        catchment = draw_catchment(generator)
        weather = draw_weather(catchment, WARM_UP_DAYS + 365 * self.years, generator)
        discharge, _ = simulate(catchment, *weather)
        inputs = np.stack(weather, axis=1)[WARM_UP_DAYS:]
        target = discharge[WARM_UP_DAYS:]
        first, second = int(0.7 * len(target)), int(0.85 * len(target))
        inputs = (inputs - inputs[:first].mean(0)) / inputs[:first].std(0)
        target = (target - target[:first].mean()) / target[:first].std()
        windows = np.lib.stride_tricks.sliding_window_view(inputs, self.window_days, axis=0).swapaxes(1, 2)
        ends = np.arange(self.window_days - 1, len(target))
        parts = (ends < first, (ends >= first + self.window_days) & (ends < second), ends >= second + self.window_days)
        return tuple(_dataset(windows[part], target[ends[part]]) for part in parts)  # type: ignore[return-value]


def _dataset(inputs: np.ndarray, target: np.ndarray) -> TensorDataset:
    return TensorDataset(
        torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float32)),
        torch.from_numpy(target[:, None].astype(np.float32)),
    )
