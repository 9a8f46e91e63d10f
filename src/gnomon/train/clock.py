"""Wall time per step, without evaluation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor


class StepClock:
    """Measures the mean step time between two laps."""

    def __init__(self, device: torch.device, step: int) -> None:
        self._device = device
        self._since = time.perf_counter()
        self._step = step

    def lap(self, step: int) -> float:
        """Return the mean seconds per step since the last lap; the caller has waited for the device."""
        now = time.perf_counter()
        step_time_s = (now - self._since) / (step - self._step)
        self._since, self._step = now, step
        return step_time_s

    def leave_out(self, action: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
        """Return `action` with its own time left out; the steps queued on a GPU before it still count."""

        def untimed(loss: Tensor) -> None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            start = time.perf_counter()
            action(loss)
            self._since += time.perf_counter() - start

        return untimed
