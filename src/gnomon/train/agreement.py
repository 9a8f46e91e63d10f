"""What all ranks must decide together, so that none waits for another that has left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from gnomon.runtime.signals import StopFlag
from gnomon.strategy.base import Strategy
from gnomon.train.outcomes import attempt

T = TypeVar("T")
SECONDS_BETWEEN_QUESTIONS = 1.0


def on_main_rank(strategy: Strategy, work: Callable[[], T]) -> T:
    """Do `work` on rank 0 and return its result on every rank; what `attempt` catches is raised on every rank."""
    result, error = attempt(work) if strategy.environment.is_main else (None, None)
    error, result = strategy.collectives.broadcast_object((error, result))
    if error is not None:
        raise error
    return result  # type: ignore[return-value]  # None only where T allows it


class StopAgreement:
    """Tells all ranks at the same step that one of them got a signal.

    Alone, it looks at the flag. With several ranks it averages two numbers over them about once a second: who was
    asked to stop, and the step time, from which every rank computes the same next step to ask at.
    """

    def __init__(self, strategy: Strategy, flag: StopFlag, step: int) -> None:
        self._strategy = strategy
        self._flag = flag
        self._alone = strategy.environment.world_size == 1
        self._asked_at = (step, time.perf_counter())
        self._ask_next = step + 1

    def reached(self, step: int) -> bool:
        """Return True on every rank if any rank got a signal."""
        if self._alone:
            return self._flag.signal_name is not None
        return step >= self._ask_next and self._ask(step)

    def signal_name(self) -> str:
        """Return the first signal that a rank got; call it on every rank after `reached`."""
        names = self._strategy.collectives.gather_objects(self._flag.signal_name)
        return next((name for name in names if name is not None), "SIGTERM")

    def _ask(self, step: int) -> bool:
        now = time.perf_counter()
        step_time_s = (now - self._asked_at[1]) / (step - self._asked_at[0])
        mine = torch.tensor([float(bool(self._flag)), step_time_s], device=self._strategy.device, dtype=torch.float64)
        stops, mean_step_time_s = self._strategy.collectives.all_reduce(mine).tolist()
        self._asked_at = (step, now)
        self._ask_next = step + max(1, int(SECONDS_BETWEEN_QUESTIONS / mean_step_time_s))
        return stops > 0.0
