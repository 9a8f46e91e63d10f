"""What a LightningModule may ask for under our loop, and what it may not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gnomon.errors import ConfigError
from gnomon.train.lightning.library import lightning

_REFUSED = (
    "backward", "configure_callbacks", "configure_gradient_clipping", "lr_scheduler_step", "on_after_backward",
    "on_after_batch_transfer", "on_before_backward", "on_before_batch_transfer", "on_before_optimizer_step",
    "on_before_zero_grad", "on_fit_end", "on_fit_start", "on_load_checkpoint", "on_save_checkpoint",
    "on_train_batch_end", "on_train_batch_start", "on_validation_batch_end", "on_validation_batch_start",
    "on_validation_end", "on_validation_model_eval", "on_validation_model_train", "on_validation_start",
    "optimizer_step", "optimizer_zero_grad", "transfer_batch_to_device",
)  # fmt: skip
_SCHEDULER_SETTINGS = {"scheduler", "interval", "frequency", "name"}
_INSTEAD = "Train it with gnomon.train.lightning.LightningTrainer, which runs Lightning's own loop"


def check_module(module: Any) -> None:
    """Raise ConfigError for manual optimization and for hooks that our loop does not call."""
    if not module.automatic_optimization:
        raise ConfigError(
            f"{type(module).__name__} sets automatic_optimization=False, but our loop does the steps. {_INSTEAD}, or "
            "write a gnomon.train.trainer.Trainer."
        )
    base = lightning().LightningModule
    refused = [name for name in _REFUSED if getattr(type(module), name) is not getattr(base, name)]
    if refused:
        raise ConfigError(
            f"{type(module).__name__} overrides {', '.join(refused)}, which our loop does not call. {_INSTEAD}."
        )
    for name in ("training_step", "configure_optimizers"):
        if getattr(type(module), name) is getattr(base, name):
            raise ConfigError(f"{type(module).__name__} has no {name}. Define it.")


def with_index(step: Callable[..., Any], batch: Any, index: int) -> tuple[Any, ...]:
    """Return the arguments of `training_step` or `validation_step`, which may leave out the index of the batch."""
    parameters = inspect.signature(step).parameters
    if "dataloader_iter" in parameters:
        raise ConfigError(f"{step.__qualname__} takes dataloader_iter, which our loop does not give. {_INSTEAD}.")
    return (batch, index) if len(parameters) > 1 else (batch,)


def read_optimizers(configured: Any) -> tuple[Optimizer, dict[str, Any] | None]:
    """Return the optimizer and the settings of its scheduler, in any of the forms that Lightning knows.

    Raises ConfigError for none, for several, and for settings that our loop does not know.
    """
    optimizer, scheduler = _split(configured)
    if not isinstance(optimizer, Optimizer):
        raise ConfigError(f"configure_optimizers returned {type(optimizer).__name__} for an optimizer. Return one.")
    if scheduler is None:
        return optimizer, None
    settings = dict(scheduler) if isinstance(scheduler, dict) else {"scheduler": scheduler}
    plateau = isinstance(settings.get("scheduler"), ReduceLROnPlateau)
    unknown = sorted(settings.keys() - _SCHEDULER_SETTINGS - ({"monitor"} if plateau else set()))
    if unknown:
        raise ConfigError(
            f"configure_optimizers sets {', '.join(unknown)} of its lr_scheduler, which our loop does not know. "
            f"Leave it out. {_INSTEAD}."
        )
    if settings.get("interval", "epoch") not in ("epoch", "step"):
        raise ConfigError(f"lr_scheduler interval={settings['interval']!r}; set it to 'step' or 'epoch'.")
    if plateau:
        _check_plateau(settings)
    return optimizer, settings


def _check_plateau(settings: dict[str, Any]) -> None:
    if "monitor" not in settings:
        raise ConfigError(
            "configure_optimizers returned ReduceLROnPlateau without monitor. Name the figure that it follows, as in "
            "{'scheduler': ..., 'monitor': 'val_loss'}."
        )
    if settings.get("interval", "epoch") != "epoch" or settings.get("frequency", 1) != 1:
        raise ConfigError(
            "configure_optimizers sets interval or frequency of ReduceLROnPlateau, which is stepped after each "
            "evaluation here. Leave them out, and set eval_every."
        )


def _split(configured: Any) -> tuple[Any, Any]:
    if isinstance(configured, dict):
        return configured.get("optimizer"), configured.get("lr_scheduler")
    if isinstance(configured, tuple) and len(configured) == 2 and isinstance(configured[0], list | tuple):
        optimizers, schedulers = configured
        return _only(optimizers, "optimizers"), _only(schedulers, "schedulers") if schedulers else None
    if isinstance(configured, list | tuple):
        only = _only(configured, "optimizers")
        return _split(only) if isinstance(only, dict) else (only, None)
    return configured, None


def _only(values: Any, kind: str) -> Any:
    if len(values) != 1:
        raise ConfigError(f"configure_optimizers returned {len(values)} {kind}, but our loop has one. {_INSTEAD}.")
    return values[0]
