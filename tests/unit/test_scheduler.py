"""PyTorch's schedulers in the training loop: stepped, resumed with all that they change, refused."""

from functools import partial

import pytest
import torch
from torch.optim import lr_scheduler

from gnomon.errors import ConfigError
from line_fixtures import LineTrainer, config, curve_and_state, interrupted_and_resumed

pytestmark = pytest.mark.usefixtures("one_thread")


class ScheduledTrainer(LineTrainer):
    """Plain SGD with one of PyTorch's schedulers."""

    def create_optimizer(self):
        return torch.optim.SGD(self.module.parameters(), lr=self.config.learning_rate)

    def create_scheduler(self):
        return lr_scheduler.ReduceLROnPlateau(self.optimizer)


@pytest.mark.parametrize(
    "create",
    [
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.5),
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, milestones=[4, 8], gamma=0.5),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** (step // 4)),
        lambda optimizer: lr_scheduler.SequentialLR(
            optimizer,
            [lr_scheduler.ConstantLR(optimizer, 1.0), lr_scheduler.MultiStepLR(optimizer, [2, 6], gamma=0.5)],
            milestones=[2],
        ),
    ],
    ids=["StepLR", "MultiStepLR", "LambdaLR", "SequentialLR"],
)
def test_a_scheduler_is_stepped_after_the_optimizer_and_resumed(tmp_path, recwarn, monkeypatch, create):
    monkeypatch.setattr(ScheduledTrainer, "create_scheduler", lambda self: create(self.optimizer))
    settings = {"learning_rate": 0.01, "checkpoint_every": 12, "grad_clip": None}
    whole = ScheduledTrainer(config(tmp_path / "whole", **settings)).execute()
    rates = [row["lr"] for row in whole.read_metrics()]
    assert rates == [0.01] * 4 + [0.005] * 4 + [0.0025] * 4  # the first step has the full rate
    run, _ = interrupted_and_resumed(ScheduledTrainer, tmp_path / "run", at=6, **settings)
    assert [row["lr"] for row in run.read_metrics()] == rates
    assert curve_and_state(run) == curve_and_state(whole)
    assert not [str(w.message) for w in recwarn if "lr_scheduler.step()" in str(w.message)]


@pytest.mark.parametrize(
    ("optimize", "create"),
    [
        (torch.optim.AdamW, lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)),
        (
            lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9),
            lambda optimizer: lr_scheduler.CyclicLR(optimizer, 1e-4, 1e-3, step_size_up=5),
        ),
    ],
    ids=["OneCycleLR", "CyclicLR"],
)
def test_a_scheduler_that_cycles_momentum_is_resumed_with_it(tmp_path, monkeypatch, optimize, create):
    monkeypatch.setattr(ScheduledTrainer, "create_optimizer", lambda self: optimize(self.module.parameters(), lr=1e-3))
    monkeypatch.setattr(ScheduledTrainer, "create_scheduler", lambda self: create(self.optimizer))
    whole = ScheduledTrainer(config(tmp_path / "whole", checkpoint_every=12)).execute()
    run, _ = interrupted_and_resumed(ScheduledTrainer, tmp_path / "run", at=6, checkpoint_every=12)
    assert curve_and_state(run) == curve_and_state(whole)


def test_a_scheduler_that_waits_for_a_plateau_follows_the_evaluations_and_is_resumed(tmp_path, monkeypatch):
    losses = dict.fromkeys(range(13), 1.0)
    make = partial(ScheduledTrainer, eval_losses=losses)
    monkeypatch.setattr(
        ScheduledTrainer, "create_scheduler", lambda self: lr_scheduler.ReduceLROnPlateau(self.optimizer, patience=1)
    )
    settings = {"learning_rate": 0.01, "checkpoint_every": 12, "eval_every": 2}
    whole = make(config(tmp_path / "whole", **settings)).execute()
    rates = [row["lr"] for row in whole.read_metrics() if "lr" in row]
    assert rates == pytest.approx([0.01] * 6 + [0.001] * 4 + [0.0001] * 2)  # the third and fifth are no better
    run, _ = interrupted_and_resumed(make, tmp_path / "run", at=5, **settings)
    assert [row["lr"] for row in run.read_metrics() if "lr" in row] == rates
    assert curve_and_state(run) == curve_and_state(whole)


def test_a_plateau_that_nothing_would_be_known_of_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ReduceLROnPlateau, which follows eval_loss, but eval_every=0"):
        ScheduledTrainer(config(tmp_path / "run")).execute()
    assert not (tmp_path / "run").exists()
