"""Calls that the training loop makes on every rank, for what does not belong into a trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from gnomon.train.trainer import Trainer


class Callback:
    """Override what you need; what is not overridden is not called. An exception ends the run.

    All calls come on every rank in the same order, so that a callback may use `trainer.strategy.collectives`.
    """

    def on_train_start(self, trainer: Trainer) -> None:
        """Take note that everything is built, and restored if the run is resumed."""

    def on_step_end(self, trainer: Trainer, loss: Tensor) -> None:
        """Take note of the step `trainer.step`; `loss` is this rank's mean, still on the device."""

    def on_evaluation_end(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Take note of an evaluation; the metrics are those of all ranks together."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Take note of a checkpoint; an asynchronous one may still be on its way to `path`."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Take note that the last step is done."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs, as JSON values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""


def overridden(callbacks: list[Callback], method: str) -> list[Callable[..., None]]:
    """Return the bound methods of the callbacks that override `method`, so that the others cost nothing."""
    return [getattr(each, method) for each in callbacks if getattr(type(each), method) is not getattr(Callback, method)]
