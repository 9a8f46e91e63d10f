"""Time a function on its device: median and spread over repetitions, in lockstep over ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist

MIN_REPEATS = 5
MIN_REPEATS_OF_LONG_CALLS = 3
LONG_CALL_S = 0.05
MAX_QUEUED_CALLS = 8
SHORT_CALL_S = 1e-3
SLEEP_CYCLES = 8_000_000  # some milliseconds of a GPU's clock, longer than the host needs to queue the calls
MIN_COLLECTIVE_REPEATS = 20
MAX_REPEATS = 200


@dataclass
class Stopwatch:
    """Times functions for at least `min_duration_s` each and remembers the spread by group.

    Every rank starts each benchmark together and keeps running for the same time, so that what is measured is a
    share of a busy machine, as in training.
    """

    device: torch.device
    min_duration_s: float = 0.02
    spreads: dict[str, list[float]] = field(default_factory=dict)
    _queued: int = 1

    def time_s(self, group: str, function: Callable[[], object]) -> float:
        """Return the median seconds of one call."""
        repeats = MIN_REPEATS if self._start_together(function) < LONG_CALL_S else MIN_REPEATS_OF_LONG_CALLS
        samples: list[float] = []
        end = time.perf_counter() + self.min_duration_s
        while len(samples) < repeats or (time.perf_counter() < end and len(samples) < MAX_REPEATS):
            samples.append(self._call_s(function))
        return self._median(group, samples)

    def collective_time_s(self, group: str, function: Callable[[], object]) -> float:
        """Return the median seconds of one call that all ranks must make equally often."""
        once_s = self._start_together(function)
        self._queued = 1  # ranks that queued different numbers would wait for each other forever
        wanted = min(MAX_REPEATS, max(MIN_COLLECTIVE_REPEATS, self.min_duration_s / once_s))
        repeats = torch.tensor([wanted], dtype=torch.float32, device=self.device)
        dist.broadcast(repeats, src=0)
        return self._median(group, [self._call_s(function) for _ in range(int(repeats))])

    def _start_together(self, function: Callable[[], object]) -> float:
        """Warm up and return the seconds of one call; must run equally often on all ranks, as every caller does."""
        function()
        if dist.is_initialized():
            dist.barrier()
        once_s = self._call_s(function)
        self._queued = MAX_QUEUED_CALLS if once_s < SHORT_CALL_S else 1
        return once_s

    def _median(self, group: str, samples: list[float]) -> float:
        low, median, high = np.quantile(samples, (0.1, 0.5, 0.9))
        self.spreads.setdefault(group, []).append(float((high - low) / median))
        return float(median)

    def spread(self) -> dict[str, float]:
        """Return the median over benchmarks of (p90 - p10) / median, by group."""
        return {group: float(np.median(values)) for group, values in self.spreads.items()}

    def _call_s(self, function: Callable[[], object]) -> float:
        if self.device.type == "cuda":
            return self._cuda_call_s(function)
        began = time.perf_counter()
        function()
        return time.perf_counter() - began

    def _cuda_call_s(self, function: Callable[[], object]) -> float:
        """Return the device's seconds of one call: it sleeps until the calls are queued, so no launch is timed."""
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        torch.cuda._sleep(SLEEP_CYCLES)
        start.record()
        for _ in range(self._queued):
            function()
        stop.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(stop)) / 1e3 / self._queued
