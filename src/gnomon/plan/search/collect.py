"""Keep the best of a stream of candidates in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.search.space import Integers


class _Kept:
    """Candidates by step time, peak memory and number."""

    def __init__(self) -> None:
        self.times, self.memories, self.numbers = np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)

    def rows(self) -> list[tuple[float, float, int]]:
        """Return (step time in seconds, peak memory in bytes, number) of each."""
        return list(zip(self.times.tolist(), self.memories.tolist(), self.numbers.tolist(), strict=True))

    def _join(self, times: Array, memories: Array, numbers: Integers) -> None:
        self.times = np.concatenate([self.times, times])
        self.memories = np.concatenate([self.memories, memories])
        self.numbers = np.concatenate([self.numbers, numbers])

    def _take(self, chosen: NDArray[np.intp]) -> None:
        self.times, self.memories, self.numbers = self.times[chosen], self.memories[chosen], self.numbers[chosen]


class Best(_Kept):
    """The `count` candidates with the least time, or memory; ties go to the smaller number."""

    def __init__(self, count: int, *, by_memory: bool = False) -> None:
        super().__init__()
        self.count, self.by_memory = count, by_memory

    def add(self, times: Array, memories: Array, numbers: Integers) -> None:
        """Take in more candidates."""
        values = self._values(times, memories)
        limit = self._values(self.times, self.memories)[-1] if self.numbers.size == self.count else np.inf
        if values.size > 4 * self.count:
            limit = min(limit, np.partition(values, self.count)[self.count])
        better = values <= limit
        self._join(times[better], memories[better], numbers[better])
        self._take(np.lexsort((self.numbers, self._values(self.times, self.memories)))[: self.count])

    def _values(self, times: Array, memories: Array) -> Array:
        return memories if self.by_memory else times


class Front(_Kept):
    """The candidates that no other beats in both time and memory, by time."""

    def add(self, times: Array, memories: Array, numbers: Integers) -> None:
        """Take in more candidates."""
        if self.times.size:
            place = np.searchsorted(self.times, times, side="right") - 1
            beaten = (place >= 0) & (self.memories[np.maximum(place, 0)] <= memories)
            times, memories, numbers = times[~beaten], memories[~beaten], numbers[~beaten]
        if times.size == 0:
            return
        self._join(times, memories, numbers)
        order = np.lexsort((self.numbers, self.memories, self.times))
        least = np.minimum.accumulate(self.memories[order])
        keep = np.concatenate([[True], self.memories[order][1:] < least[:-1]])
        self._take(order[keep])
