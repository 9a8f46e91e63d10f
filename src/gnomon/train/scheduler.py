"""PyTorch's schedulers of the learning rate, made resumable from a file of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gnomon.errors import ConfigError


class ResumableScheduler:
    """A scheduler that is stepped after each optimizer step.

    Raises ConfigError for ReduceLROnPlateau, which would need a metric at each step.
    """

    def __init__(self, scheduler: LRScheduler) -> None:
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ConfigError(
                "create_scheduler returned ReduceLROnPlateau, which wants a metric, but a scheduler is stepped without "
                "one after each optimizer step. Return another scheduler, or change the rate in a callback's "
                "on_evaluation_end."
            )
        self._scheduler = scheduler

    def step(self) -> None:
        """Set the learning rates of the next optimizer step."""
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON values.

        Mappings whose keys are no strings are left out, since JSON would change them: they are settings, such as the
        milestones of MultiStepLR, which the scheduler of the resumed run has already.
        """
        state: dict[str, Any] = _with_string_keys(self._scheduler.state_dict())
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; the learning rates too, because many schedulers compute the next from the last."""
        self._scheduler.load_state_dict(state)
        for group, rate in zip(self._scheduler.optimizer.param_groups, self._scheduler.get_last_lr(), strict=True):
            group["lr"] = rate


def _with_string_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if not isinstance(inner, Mapping) or _is_json(inner)}
        return {key: _with_string_keys(inner) for key, inner in kept.items()}
    return [_with_string_keys(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_json(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in mapping)
