"""A line that is fitted to six batches, and runs of it that are stopped and resumed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gnomon.errors import InterruptedRunError
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from gnomon.train.config import TrainingConfig
from gnomon.train.trainer import Trainer
from training_fixtures import read_curve


class Batches:
    """Six batches of y = 2 x + 1 with a position that can be saved."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self):
        while True:
            x = torch.arange(1.0, 5.0)[:, None] + self.position % 6
            self.position += 1
            yield x, 2.0 * x + 1.0

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class LineTrainer(Trainer):
    """Fits a line; `events` says what happens in which step, `eval_losses` what evaluations find."""

    def __init__(self, config: TrainingConfig, callbacks=(), eval_losses=None) -> None:
        super().__init__(config, callbacks)
        self.events: dict[int, Any] = {}
        self.eval_losses = eval_losses

    def create_model(self):
        return nn.Linear(1, 1)

    def create_loader(self):
        return Batches()

    def create_evaluation_loader(self):
        return [(torch.ones(2, 1), torch.full((2, 1), 3.0))]

    def training_step(self, batch):
        self.events.pop(self.step + 1, lambda: None)()
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch):
        if self.eval_losses is not None:
            return torch.tensor(self.eval_losses[self.step])
        return nn.functional.mse_loss(self.model(batch[0]), batch[1])

    def parameters(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.module.parameters()).detach().clone()


def config(run_dir: Path, **changes: Any) -> TrainingConfig:
    settings = {"run_dir": str(run_dir), "num_steps": 12, "learning_rate": 0.05, "device": "cpu", "progress": False}
    return TrainingConfig(**{**settings, "log_every": 1, **changes})


def curve_and_state(run: RunDirectory) -> tuple[list[Any], dict[str, Any]]:
    """Return the losses, and the newest checkpoint with the fingerprint of its tensors; .metadata names the folder."""
    state = read_state(list_checkpoints(run.checkpoints)[0])
    return read_curve(run.path), {**state, "files": state["files"]["__0_0.distcp"]}


def interrupted_and_resumed(make, run_dir: Path, at: int, **changes: Any) -> tuple[RunDirectory, Trainer]:
    """Stop a run by a signal in step `at`, then continue it with a new trainer."""
    first = make(config(run_dir, **changes))
    first.events[at] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        first.execute()
    second = make(config(run_dir, resume=True, **changes))
    return second.execute(), second
