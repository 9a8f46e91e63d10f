"""PyTorch's schedulers of the learning rate, made resumable from a file of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from gnomon.errors import ConfigError, did_you_mean

_CYCLED = ("momentum", "betas")  # what OneCycleLR and CyclicLR change beside the learning rate


class ResumableScheduler:
    """A scheduler that is stepped after each optimizer step."""

    def __init__(self, scheduler: LRScheduler) -> None:
        self._scheduler = scheduler

    def step(self) -> None:
        """Set the learning rates of the next optimizer step."""
        self._scheduler.step()

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Take note of an evaluation, of which most schedulers make nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON values, with the momentum or betas of each group of the optimizer.

        Mappings whose keys are no strings are left out, since JSON would change them: they are settings, such as the
        milestones of MultiStepLR, which the scheduler of the resumed run has already.
        """
        state: dict[str, Any] = _with_string_keys(self._scheduler.state_dict())
        groups = self._scheduler.optimizer.param_groups
        return {**state, "momenta": [{name: group[name] for name in _CYCLED if name in group} for group in groups]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state; the learning rates too, because many schedulers compute the next from the last."""
        momenta = state.get("momenta", [])
        self._scheduler.load_state_dict({name: value for name, value in state.items() if name != "momenta"})
        groups = self._scheduler.optimizer.param_groups
        for group, rate in zip(groups, self._scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
        for group, saved in zip(groups, momenta, strict=False):
            group.update({name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()})


class PlateauScheduler(ResumableScheduler):
    """ReduceLROnPlateau, which is stepped after each evaluation with one of its metrics."""

    def __init__(self, scheduler: ReduceLROnPlateau, metric: str) -> None:
        super().__init__(scheduler)
        self._plateau = scheduler
        self._metric = metric

    def step(self) -> None:
        """Leave the learning rates as they are."""

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Set the learning rates until the next evaluation; raise ConfigError if this one lacks the metric."""
        if self._metric not in metrics:
            raise ConfigError(
                f"ReduceLROnPlateau waits for '{self._metric}', which is not among the evaluation metrics. "
                f"{did_you_mean(self._metric, metrics)}"
            )
        self._plateau.step(metrics[self._metric])


def resumable(scheduler: LRScheduler | None, eval_every: int, metric: str | None) -> ResumableScheduler | None:
    """Return what steps the scheduler; `metric` is what ReduceLROnPlateau follows, None where it cannot be had.

    Raises ConfigError for ReduceLROnPlateau without evaluations.
    """
    if not isinstance(scheduler, ReduceLROnPlateau):
        return None if scheduler is None else ResumableScheduler(scheduler)
    if metric is None:
        raise ConfigError(
            "The scheduler is a ReduceLROnPlateau, but the evaluations of this trainer have no loss that it could "
            "follow. Return another scheduler."
        )
    if not eval_every:
        raise ConfigError(
            f"The scheduler is a ReduceLROnPlateau, which follows {metric}, but eval_every=0. "
            "Set eval_every to a number of steps, or return another scheduler."
        )
    return PlateauScheduler(scheduler, metric)


def _with_string_keys(value: Any) -> Any:
    if isinstance(value, Mapping):
        kept = {key: inner for key, inner in value.items() if not isinstance(inner, Mapping) or _is_json(inner)}
        return {key: _with_string_keys(inner) for key, inner in kept.items()}
    return [_with_string_keys(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_json(mapping: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) for key in mapping)
