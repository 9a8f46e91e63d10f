"""The best evaluation so far, and whether waiting for a better one still makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gnomon.errors import ConfigError, did_you_mean
from gnomon.train.config import TrainingConfig


class BestMetric:
    """Follows one evaluation metric; `patience` evaluations without a better one are enough (0: never enough)."""

    def __init__(self, metric: str, mode: Literal["min", "max"], patience: int = 0, min_delta: float = 0.0) -> None:
        self.metric = metric
        self.value: float | None = None
        self.step: int | None = None
        self._sign = 1.0 if mode == "max" else -1.0
        self._patience = patience
        self._min_delta = min_delta
        self._waited = 0

    @property
    def exhausted(self) -> bool:
        """True once early stopping should end the run."""
        return 0 < self._patience <= self._waited

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return True if the evaluation of `step` is the best so far; raise ConfigError if it lacks the metric.

        A value that is not a number is never better.
        """
        if self.metric not in metrics:
            raise ConfigError(
                f"best_metric='{self.metric}' is not among the evaluation metrics. {did_you_mean(self.metric, metrics)}"
            )
        value = metrics[self.metric]
        better = self.value is None or self._sign * (value - self.value) > self._min_delta
        if value != value or not better:
            self._waited += 1
            return False
        self.value, self.step, self._waited = value, step, 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return {"metric", "value", "step", "waited"}."""
        return {"metric": self.metric, "value": self.value, "step": self.step, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of the same metric; that of another one is left aside."""
        if state.get("metric") == self.metric:
            self.value, self.step, self._waited = state["value"], state["step"], state["waited"]


def create_best(config: TrainingConfig) -> BestMetric | None:
    """Return what follows the metric of the settings and says when to stop early; None if they name none."""
    if config.best_metric is None:
        return None
    return BestMetric(config.best_metric, config.best_mode, config.early_stopping, config.early_stopping_delta)
