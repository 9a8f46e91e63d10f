"""`python -m supervised_worker FOLDER SCENARIO...`: one rank that goes through scenarios, and writes what it saw."""

import json
import math
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gnomon.errors import GnomonError, GnomonWarning, InterruptedRunError
from gnomon.launch.rank_errors import report_rank_error
from gnomon.train import agreement, tensor_store
from gnomon.train.callbacks import Callback
from gnomon.train.supervised import SupervisedTrainer
from supervised_fixtures import TRAIN, VALIDATION, make_trainer, train

RANK = int(os.environ.get("RANK", "0"))
STOPPED_AT = 6  # in the middle of the second epoch


def caught(run: Any) -> dict[str, str]:
    """Return which error of ours a run ends with."""
    try:
        run()
    except GnomonError as error:
        return {"type": type(error).__name__, "message": str(error)}
    return {"type": "none", "message": ""}


def whole(folder: Path) -> dict[str, Any]:
    """Train without interruption."""
    trainer = train(folder / "whole")
    return {"weights": torch.nn.utils.parameters_to_vector(trainer.module.parameters()).tolist()}


def stopped(folder: Path) -> dict[str, Any]:
    """Train until one rank is told to stop in the middle of an epoch, and save there."""
    return stop(make_trainer(folder / "stopped"))


def stop(trainer: SupervisedTrainer) -> dict[str, Any]:
    """Train until rank 0 is told to stop."""
    step = trainer.training_step

    def signalled(batch: Any) -> Any:
        if trainer.step + 1 == STOPPED_AT and RANK == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(batch)

    trainer.training_step = signalled  # type: ignore[method-assign]
    agreement.SECONDS_BETWEEN_QUESTIONS = 0.0  # ask at every step
    try:
        trainer.execute(TRAIN, VALIDATION)
    except InterruptedRunError as error:
        return {"message": str(error)}
    raise AssertionError("was not stopped")


def resumed(folder: Path) -> dict[str, Any]:
    """Continue the run `stopped`, of whatever number of ranks, to its end."""
    trainer = train(folder / "stopped", resume=True)
    return {"weights": torch.nn.utils.parameters_to_vector(trainer.module.parameters()).tolist()}


class Gathered(Callback):
    """Keeps the running mean that this rank has gathered itself."""

    def on_train_end(self, trainer: Any) -> None:
        """Copy it."""
        self.mean = trainer.module[1].running_mean.tolist()


def normalised(folder: Path) -> dict[str, Any]:
    """Train with batch normalisation, once through and once stopped and resumed."""

    def make(name: str, **changes: Any) -> SupervisedTrainer:
        return make_trainer(
            folder / name, lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)), **changes
        )

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        once = make("bn_once")
        once.callbacks = [gathered := Gathered()]
        once.execute(TRAIN, VALIDATION)
    stop(make("bn_twice"))
    twice = make("bn_twice", resume=True)
    twice.execute(TRAIN, VALIDATION)
    return {
        "warnings": [str(each.message) for each in warned if issubclass(each.category, GnomonWarning)],
        "gathered": gathered.mean,
        "once": once.module[1].running_mean.tolist(),
        "twice": twice.module[1].running_mean.tolist(),
    }


def failing_disk(folder: Path) -> dict[str, Any]:
    """Let the thread of the last rank fail to write the second of several checkpoints."""
    trainer = make_trainer(folder / "failing_disk", async_checkpoints=True, checkpoint_every=3, eval_every=0)
    real, saves = tensor_store.FileSystemWriter, []

    class Full(real):
        def write_data(self, *arguments: Any) -> Any:
            saves.append(trainer.step)
            if len(saves) == 2 and dist.get_rank() == dist.get_world_size() - 1:
                raise OSError(28, "No space left on device")
            return super().write_data(*arguments)

    tensor_store.FileSystemWriter = Full
    try:
        return {**caught(lambda: trainer.execute(TRAIN)), "step": trainer.step}
    finally:
        tensor_store.FileSystemWriter = real


def diverged(folder: Path) -> dict[str, Any]:
    """Let the loss of one rank become NaN."""
    trainer = make_trainer(folder / "diverged", checkpoint_every=2, eval_every=0, log_every=10)
    step = trainer.training_step

    def broken(batch: Any) -> Any:
        loss = step(batch)
        return loss * math.nan if RANK == 1 and trainer.step + 1 == 5 else loss

    trainer.training_step = broken  # type: ignore[method-assign]
    return caught(lambda: trainer.execute(TRAIN))


def killed(folder: Path) -> dict[str, Any]:
    """Be killed when the second asynchronous checkpoint is written but not yet complete."""
    trainer = make_trainer(folder / "killed", async_checkpoints=True, checkpoint_every=3, eval_every=0)
    real, saves = tensor_store.save_tensors, []

    def kill(*arguments: Any) -> None:
        saves.append(trainer.step)
        real(*arguments)
        if len(saves) == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    tensor_store.save_tensors = kill
    trainer.execute(TRAIN)
    raise AssertionError("was not killed")


SCENARIOS = {run.__name__: run for run in (whole, stopped, resumed, normalised, failing_disk, diverged, killed)}


def main() -> None:
    """Go through the scenarios named on the command line; raise SystemExit when one fails."""
    with report_rank_error():
        folder, *names = sys.argv[1:]
        if "RANK" in os.environ:
            dist.init_process_group("gloo")
        for name in names:
            found = SCENARIOS[name](Path(folder))
            Path(folder, f"{name}-{RANK}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
