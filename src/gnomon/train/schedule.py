"""The learning rate by step."""

from __future__ import annotations

import math
from collections.abc import Callable

from gnomon.train.config import TrainingConfig


def learning_rates(config: TrainingConfig) -> Callable[[int], float]:
    """Return the learning rate of step 1..num_steps: linear up to `learning_rate`, then as `lr_schedule` says.

    The cosine and the line end at learning_rate x min_learning_rate_ratio.
    """
    warmup, highest = config.warmup_steps, config.learning_rate
    lowest = highest * config.min_learning_rate_ratio
    per_step = 1.0 / max(1, config.num_steps - warmup)
    shapes: dict[str, Callable[[float], float]] = {
        "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
        "linear": lambda done: 1.0 - done,
        "constant": lambda done: 1.0,
    }
    shape = shapes[config.lr_schedule]

    def rate(step: int) -> float:
        if step <= warmup:
            return highest * step / warmup
        return lowest + (highest - lowest) * shape((step - warmup) * per_step)

    return rate
