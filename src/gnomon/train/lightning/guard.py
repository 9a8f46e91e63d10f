"""What Lightning's loop does for a run of ours after each batch: look at signals and at the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gnomon.errors import InterruptedRunError, TrainingError
from gnomon.runtime.signals import StopFlag
from gnomon.train.finite import not_finite

EXIT_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR2": 140}


class RunGuard(Callback):
    """Stops after a signal, with a checkpoint, and at a loss or weights that are not finite."""

    def __init__(self, flag: StopFlag, folder: Path, every: int, newest: Callable[[], Path | None]) -> None:
        self._flag = flag
        self._folder = folder
        self._every = every
        self._newest = newest

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Raise InterruptedRunError or TrainingError, on every rank, at the end of an optimizer step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        alone = trainer.world_size == 1
        if (alone or step % self._every == 0) and trainer.strategy.reduce_boolean_decision(bool(self._flag), all=False):
            self._interrupt(trainer, step)
        if step % self._every == 0:
            self._check(trainer, outputs, step)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Raise TrainingError, on every rank, rather than let weights that are not finite replace good ones."""
        self._check_weights(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise TrainingError, on every rank, for weights that are not finite."""
        self._check_weights(trainer, pl_module)

    def _interrupt(self, trainer: Trainer, step: int) -> None:
        path = self._folder / f"step-{step:06d}.ckpt"
        trainer.save_checkpoint(path)
        name = self._flag.signal_name or "A signal to another rank"
        error = InterruptedRunError(
            f"{name} arrived; training stopped after step {step}. The checkpoint '{path}' is complete; continue from "
            "it with resume=true."
        )
        error.exit_code = EXIT_CODES.get(name, InterruptedRunError.exit_code)
        raise error

    def _check(self, trainer: Trainer, outputs: Any, step: int) -> None:
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        finite = loss is None or math.isfinite(float(loss))
        if not trainer.strategy.reduce_boolean_decision(finite, all=True):
            raise self._diverged(f"The loss is {loss}", step)

    def _check_weights(self, trainer: Trainer, module: LightningModule) -> None:
        name = not_finite(module.named_parameters())
        if not trainer.strategy.reduce_boolean_decision(name is None, all=True):
            raise self._diverged(f"The weight {name or 'of another rank'} is not finite", trainer.global_step)

    def _diverged(self, found: str, step: int) -> TrainingError:
        newest = self._newest()
        advice = f"'{newest}' is the last checkpoint: continue from it, with resume=true," if newest else "Start again"
        return TrainingError(f"{found} at step {step}. {advice} with a lower learning rate or a grad_clip.")
