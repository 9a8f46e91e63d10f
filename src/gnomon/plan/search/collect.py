"""Keep the best of a stream of candidates in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.search.space import Integers

Rows = NDArray[np.float64]  # (n, 2): step time, peak memory


class Best:
    """The `count` candidates with the least objective; ties go to the smaller number."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values, self.numbers = np.zeros(0), np.zeros(0, dtype=np.int64)

    def add(self, values: Array, numbers: Integers) -> None:
        """Take in more candidates."""
        if self.values.size == self.count:
            better = values <= self.values[-1]
            values, numbers = values[better], numbers[better]
        if values.size > 4 * self.count:
            limit = np.partition(values, self.count)[self.count]
            values, numbers = values[values <= limit], numbers[values <= limit]
        values = np.concatenate([self.values, values])
        numbers = np.concatenate([self.numbers, numbers])
        order = np.lexsort((numbers, values))[: self.count]
        self.values, self.numbers = values[order], numbers[order]


class Front:
    """The candidates that no other beats in both time and memory, by time."""

    def __init__(self) -> None:
        self.times, self.memories, self.numbers = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)

    def add(self, times: Array, memories: Array, numbers: Integers) -> None:
        """Take in more candidates."""
        if self.times.size:
            place = np.searchsorted(self.times, times, side="right") - 1
            beaten = (place >= 0) & (self.memories[np.maximum(place, 0)] <= memories)
            times, memories, numbers = times[~beaten], memories[~beaten], numbers[~beaten]
        if times.size == 0:
            return
        times = np.concatenate([self.times, times])
        memories = np.concatenate([self.memories, memories])
        numbers = np.concatenate([self.numbers, numbers])
        order = np.lexsort((numbers, memories, times))
        least = np.minimum.accumulate(memories[order])
        keep = np.concatenate([[True], memories[order][1:] < least[:-1]])
        chosen = order[keep]
        self.times, self.memories, self.numbers = times[chosen], memories[chosen], numbers[chosen]
