"""Wall time per step, without evaluation and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class StepClock:
    """Measures the mean step time between two laps; without a `device` of PyTorch nothing is waited for."""

    def __init__(self, device: torch.device | None, step: int) -> None:
        self._device = device
        self._since = time.perf_counter()
        self._step = step

    def lap(self, step: int) -> float:
        """Return the mean seconds per step since the last lap; the caller has waited for the device."""
        now = time.perf_counter()
        step_time_s = (now - self._since) / (step - self._step)
        self._since, self._step = now, step
        return step_time_s

    def leave_out(self, action: Callable[[T], None]) -> Callable[[T], None]:
        """Return `action` with its own time left out; the steps queued on a GPU before it still count."""

        def untimed(loss: T) -> None:
            if self._device is not None and self._device.type == "cuda":
                import torch

                torch.cuda.synchronize(self._device)
            start = time.perf_counter()
            action(loss)
            self._since += time.perf_counter() - start

        return untimed
