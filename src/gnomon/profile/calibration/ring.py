"""Keep operands out of the caches, as they are in training, where a step touches far more than a cache holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import TypeVar

T = TypeVar("T")

RING_BYTES = 48 * 2**20
MAX_SLOTS = 128


def slots(bytes_each: float, most: int = MAX_SLOTS) -> int:
    """Return how many buffers of this size make the ring larger than the last-level cache."""
    return int(min(most, max(2, RING_BYTES // max(1.0, bytes_each))))


def rotating(make: Callable[[], T], bytes_each: float, most: int = MAX_SLOTS) -> Callable[[], T]:
    """Make enough equal operands and return a function that hands them out in turn."""
    turn = cycle([make() for _ in range(slots(bytes_each, most))])
    return lambda: next(turn)


def keeping(function: Callable[[], T], bytes_each: float) -> Callable[[], T]:
    """Return `function` with its last results kept alive, so that each result goes to memory not touched lately."""
    kept: deque[T] = deque(maxlen=slots(bytes_each))

    def call() -> T:
        result = function()
        kept.append(result)
        return result

    return call
