"""Windows of weather and what the catchment does in the last part of each, as a step of a pipeline."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import torch
from bucket import Array, draw_catchment, draw_weather, simulate
from torch.utils.data import TensorDataset

from gnomon.component import DataGetter
from gnomon.errors import ConfigError

WARM_UP_DAYS = 365  # left out: in them the stores fill
TARGETS = ("discharge", "soil_moisture")


@dataclass(frozen=True)
class Record:
    """Standardised weather (days, 3) and targets (days, 2) of a catchment, and the days on which its parts end."""

    weather: Array
    targets: Array
    train_end: int
    validation_end: int


def make_record(years: int, seed: int) -> Record:
    """Return a synthetic record: 70, 15 and 15 percent of its days are for training, validation and test.

    Weather: precipitation, temperature and evaporative demand. Targets: discharge and soil moisture. Each has mean 0
    and deviation 1 over the days for training.
    """
    generator = np.random.default_rng(seed)
    catchment = draw_catchment(generator)
    weather = draw_weather(catchment, WARM_UP_DAYS + 365 * years, generator)
    response = simulate(catchment, weather)
    inputs = np.stack(astuple(weather), axis=1)[WARM_UP_DAYS:]
    targets = np.stack([getattr(response, name) for name in TARGETS], axis=1)[WARM_UP_DAYS:]
    train_end, validation_end = int(0.7 * len(targets)), int(0.85 * len(targets))
    return Record(_standardise(inputs, train_end), _standardise(targets, train_end), train_end, validation_end)


class BucketGetter(DataGetter):
    """Makes a synthetic catchment and returns its train, validation and test parts, in the order of time.

    A sample is float32 weather (spin_up_days + predicted_days, 3) and targets (predicted_days, 2) of its last days.
    Training windows begin every `stride_days`. Those of the other parts follow each other, so that each of their days
    is predicted once, but for an incomplete window at the end; weather from before a part is what spins it up.
    """

    def __init__(
        self, years: int = 40, spin_up_days: int = 120, predicted_days: int = 240, stride_days: int = 10, seed: int = 0
    ) -> None:
        self.years = years
        self.spin_up_days = spin_up_days
        self.predicted_days = predicted_days
        self.stride_days = stride_days
        self.seed = seed
        shortest = int(0.15 * 365 * years)
        if predicted_days > shortest:
            raise ConfigError(
                f"predicted_days={predicted_days}, but of years={years} the test part has only {shortest} days. "
                "Raise years, or lower predicted_days."
            )

    def execute(self) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
        """Return the three datasets."""
        record = make_record(self.years, self.seed)
        first, second, last = record.train_end, record.validation_end, len(record.targets)
        return (
            self._windows(record, self.spin_up_days, first, self.stride_days),
            self._windows(record, first, second, self.predicted_days),
            self._windows(record, second, last, self.predicted_days),
        )

    def _windows(self, record: Record, begin: int, end: int, stride: int) -> TensorDataset:
        """Return the windows whose predicted days lie in [begin, end)."""
        starts = range(begin, end - self.predicted_days + 1, stride)
        inputs = [record.weather[start - self.spin_up_days : start + self.predicted_days] for start in starts]
        targets = [record.targets[start : start + self.predicted_days] for start in starts]
        return TensorDataset(*(torch.from_numpy(np.stack(part).astype(np.float32)) for part in (inputs, targets)))


def _standardise(values: Array, train_end: int) -> Array:
    return (values - values[:train_end].mean(0)) / values[:train_end].std(0)
