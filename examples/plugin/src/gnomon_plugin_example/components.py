"""Components, which a configuration names as `gnomon_plugin_example.components.Waves`."""

from __future__ import annotations

import math
import statistics
from typing import Any

from gnomon.component import DataGetter, DataProcessor
from gnomon.errors import ConfigError, DataError


class Waves(DataGetter):
    """Makes `length` samples of a sine with the given period, in samples, and amplitude."""

    def __init__(self, length: int, period: float = 20.0, amplitude: float = 1.0) -> None:
        if length < 1 or period <= 0:
            raise ConfigError(f"length={length} and period={period} must both be positive.")
        self.length = length
        self.period = period
        self.amplitude = amplitude

    def execute(self) -> list[float]:
        """Return the samples."""
        return [self.amplitude * math.sin(2 * math.pi * index / self.period) for index in range(self.length)]


class Standardise(DataProcessor):
    """Shifts and scales all parts so that the training part has mean 0 and standard deviation 1."""

    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any]:
        """Return the parts in the same units; raise DataError where the training part does not vary."""
        mean, deviation = statistics.fmean(train), statistics.pstdev(train)
        if deviation == 0:
            raise DataError("All values of the training part are equal, so they cannot be scaled. Give more data.")
        parts = (train, validation, test)
        scaled = (None if part is None else [(value - mean) / deviation for value in part] for part in parts)
        first, second, third = scaled
        return first, second, third
