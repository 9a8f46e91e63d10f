"""One LightningModule under Lightning's loop and under ours: the same numbers, and what is refused."""

import builtins
import json
import math
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch", reason="lightning is not installed: pip install 'gnomon[lightning]'")

from gnomon.errors import (  # noqa: E402
    CheckpointError,
    ConfigError,
    DataError,
    InterruptedRunError,
    RunDirectoryError,
    SpecError,
    TrainingError,
)
from gnomon.launch.local import RankJob, run_ranks  # noqa: E402
from lightning_fixtures import Classifier, figures, make_bridge, make_lightning, weights  # noqa: E402
from supervised_fixtures import TEST, TRAIN, VALIDATION, newest_tensors  # noqa: E402

TESTS = Path(__file__).parents[1]
TOLERANCE = 1e-5  # relative, of one rank against two: sums of gradients are rounded in another order
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # Lightning gives advice on small runs
]


def seeded(module_class=Classifier, *arguments):
    """Return a module with the weights that both trainers' seeding would give."""
    torch.manual_seed(0)
    return module_class(*arguments)


# The same numbers both ways


@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_both_loops_give_the_same_loss_curve_and_weights(tmp_path, interval, accumulation):
    ours, theirs = seeded(Classifier, interval), seeded(Classifier, interval)
    make_bridge(tmp_path / "ours", ours, accumulation=accumulation, grad_clip=0.5).execute(TRAIN)
    make_lightning(tmp_path / "theirs", theirs, accumulation=accumulation, grad_clip=0.5).execute(TRAIN)
    assert len(ours.losses) == 10 * accumulation
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
    assert (weights(ours) - weights(theirs)).norm() <= 1e-6 * weights(theirs).norm()
    assert ours.seen == theirs.seen  # (step, epoch, index of the batch)


def test_a_module_from_a_function_starts_from_the_seed_in_both_loops(tmp_path):
    *_, ours = make_bridge(tmp_path / "ours").execute(TRAIN)
    *_, theirs = make_lightning(tmp_path / "theirs").execute(TRAIN)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)


def test_what_is_logged_is_a_mean_over_steps_and_metrics_are_over_all_samples(tmp_path):
    module = seeded()
    make_bridge(tmp_path / "run", module, log_every=5, eval_every=5, best_metric="val_loss").execute(
        TRAIN, VALIDATION, TEST
    )
    assert figures(tmp_path / "run", "train_loss") == pytest.approx(
        [sum(module.losses[:5]) / 5, sum(module.losses[5:]) / 5], rel=1e-6
    )
    with torch.no_grad():
        outputs, tests = module(VALIDATION[0]), module(TEST[0])
    right = (outputs.argmax(1) == VALIDATION[1]).float().mean().item()
    assert figures(tmp_path / "run", "val_accuracy")[-1] == pytest.approx(right, abs=1e-7)
    assert figures(tmp_path / "run", "val_loss")[-1] == pytest.approx(
        nn.functional.cross_entropy(outputs, VALIDATION[1]).item(), rel=1e-6
    )
    assert figures(tmp_path / "run", "test_loss") == pytest.approx(
        [nn.functional.cross_entropy(tests, TEST[1]).item()], rel=1e-6
    )


@pytest.mark.torch_dist
def test_two_ranks_train_and_measure_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
    run_ranks(
        RankJob(
            module="lightning_worker",
            arguments=(str(tmp_path),),
            log_dir=tmp_path / "logs",
            ranks=2,
            threads_per_rank=1,
        )
    )
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    *_, alone = make_bridge(tmp_path / "alone", eval_every=5).execute(TRAIN, VALIDATION, TEST)
    for found in ranks[0].values():
        assert (torch.tensor(found) - weights(alone)).norm() <= TOLERANCE * weights(alone).norm()
    for name in ("val_accuracy", "test_accuracy"):
        assert figures(tmp_path / "bridge", name) == figures(tmp_path / "alone", name)  # exactly
        assert figures(tmp_path / "sharded", name) == figures(tmp_path / "alone", name)
    for name in ("loss", "train_loss", "val_loss", "test_loss"):
        theirs = figures(tmp_path / "alone", name)
        for run in ("bridge", "sharded"):
            assert figures(tmp_path / run, name) == pytest.approx(theirs, rel=TOLERANCE)


# Stopped and resumed


@pytest.mark.parametrize("make", [make_bridge, make_lightning])
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_bit_for_bit(tmp_path, make):
    class Stopped(Classifier):
        def training_step(self, batch, batch_idx):
            if self.trainer.global_step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().training_step(batch, batch_idx)

    whole = seeded()
    make(tmp_path / "whole", whole, checkpoint_every=5).execute(TRAIN)
    with pytest.raises(
        InterruptedRunError, match=r"SIGTERM arrived; training stopped after step 6.*resume=true"
    ) as caught:
        make(tmp_path / "run", seeded(Stopped), checkpoint_every=5).execute(TRAIN)
    assert caught.value.exit_code == 143
    resumed = seeded()
    make(tmp_path / "run", resumed, checkpoint_every=5, resume=True).execute(TRAIN)
    assert resumed.losses == whole.losses[6:]
    assert torch.equal(weights(resumed), weights(whole))
    if make is make_bridge:
        assert newest_tensors(tmp_path / "run") == newest_tensors(tmp_path / "whole")
        assert figures(tmp_path / "run", "train_loss") == figures(tmp_path / "whole", "train_loss")
    else:
        kept = sorted(path.name for path in (tmp_path / "whole" / "checkpoints").iterdir())
        assert kept == ["step-000005.ckpt", "step-000010.ckpt"]


@pytest.mark.parametrize("make", [make_bridge, make_lightning])
def test_a_loss_that_is_not_finite_names_the_step_and_the_last_checkpoint(tmp_path, make):
    class Diverging(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (math.nan if self.trainer.global_step == 6 else 1.0)

    with pytest.raises(TrainingError, match=r"The loss is nan at step 7.*step-00000[56]"):
        make(tmp_path / "run", seeded(Diverging), checkpoint_every=3 if make is make_bridge else 5).execute(TRAIN)


class Rooted(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        nothing = (self.network[0].weight * 0.0).sum().sqrt()  # has no derivative at 0
        return loss + 0.0 * nothing if self.trainer.global_step == 9 else loss


@pytest.mark.parametrize("make", [make_bridge, make_lightning])
def test_weights_that_are_not_finite_are_not_saved_though_the_loss_is(tmp_path, make):
    with pytest.raises(TrainingError, match=r"The weight network\.0\.weight is not finite at step 10.*step-000005"):
        make(tmp_path / "run", seeded(Rooted), checkpoint_every=5, log_every=5).execute(TRAIN)
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000005"]


@pytest.mark.parametrize("make", [make_bridge, make_lightning])
def test_a_run_is_never_overwritten(tmp_path, make):
    make(tmp_path / "run").execute(TRAIN)
    with pytest.raises(RunDirectoryError, match="never overwritten"):
        make(tmp_path / "run").execute(TRAIN)


def test_checkpoints_of_one_loop_are_none_of_the_other(tmp_path):
    make_bridge(tmp_path / "run", checkpoint_every=5).execute(TRAIN)
    with pytest.raises(CheckpointError, match="another trainer"):
        make_lightning(tmp_path / "run", resume=True).execute(TRAIN)


# Lightning's loop


def test_a_datamodule_gives_the_data_of_lightnings_loop(tmp_path):
    class Data(pl.LightningDataModule):
        def train_dataloader(self):
            return DataLoader(TensorDataset(*TRAIN), batch_size=16, shuffle=True)

        def val_dataloader(self):
            return DataLoader(TensorDataset(*VALIDATION), batch_size=16)

    make_lightning(tmp_path / "run", num_steps=0, epochs=2, datamodule=Data()).execute()
    assert len(figures(tmp_path / "run", "val_accuracy")) == 2
    assert len(figures(tmp_path / "run", "train_loss")) == 10
    with pytest.raises(DataError, match="either a dataset as the first input, or a datamodule"):
        make_lightning(tmp_path / "both", datamodule=Data()).execute(TRAIN)
    with pytest.raises(DataError, match="either a dataset as the first input, or a datamodule"):
        make_lightning(tmp_path / "none").execute()


def test_evaluation_and_test_data_of_lightnings_loop(tmp_path):
    make_lightning(tmp_path / "run", eval_every=5).execute(TRAIN, VALIDATION, TEST)
    assert len(figures(tmp_path / "run", "val_loss")) == 3  # at steps 5 and 10, and the test under the same name
    settings = json.loads((tmp_path / "run" / "training.json").read_text(encoding="utf-8"))
    assert settings["eval_every"] == 5


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"trainer": {"max_steps": 3}}, ConfigError, "trainer sets max_steps, which follow from config"),
        ({"trainer": {"max_tim": 3}}, ConfigError, "Did you mean 'max_time'"),
        ({"epochs": 2}, SpecError, "exactly one of num_steps and epochs"),
        ({"batch": 15, "accumulation": 2}, ConfigError, "Set batch to a multiple of 2"),
        ({"strategy": "no_such"}, (ConfigError, ValueError), "no_such"),
    ],
)
def test_settings_that_do_not_fit_lightnings_loop_are_one_message(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        make_lightning(tmp_path / "run", **changes).execute(TRAIN)


# What the bridge refuses


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Several(Classifier):
    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD(self.parameters(), 0.1)]


class Plateau(Classifier):
    monitor: str | None = None

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        monitored = {"monitor": self.monitor} if self.monitor else {}
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, **monitored}}


def test_a_monitored_plateau_follows_what_the_module_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(Plateau, "monitor", "val_accuracy")
    make_bridge(tmp_path / "run", Plateau, eval_every=4).execute(TRAIN, VALIDATION)
    assert figures(tmp_path / "run", "lr") == pytest.approx([0.1] * 8 + [0.01] * 2)  # at most 1, never twice as good


class Monitored(Classifier):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        return [optimizer], [{"scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1), "monitor": "val_loss"}]


class Hooked(Classifier):
    def on_before_optimizer_step(self, optimizer):
        pass


class Skipping(Classifier):
    def training_step(self, batch, batch_idx):
        return None


class Asking(Classifier):
    def training_step(self, batch, batch_idx):
        return self.trainer.fit_loop


class Summing(Classifier):
    def training_step(self, batch, batch_idx):
        self.log("x", 1.0, reduce_fx="sum")
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Manual, "automatic_optimization=False, but our loop does the steps"),
        (Several, "returned 2 optimizers, but our loop has one"),
        (Plateau, "returned ReduceLROnPlateau without monitor"),
        (Monitored, "sets monitor of its lr_scheduler"),
        (Hooked, "overrides on_before_optimizer_step, which our loop does not call"),
        (Skipping, "training_step returned NoneType; return the loss"),
        (Asking, r"self\.trainer\.fit_loop is not there"),
        (Summing, "only means are taken here"),
        (nn.Linear(1, 1), "model is a Linear, not a LightningModule"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else None,
)
def test_what_our_loop_cannot_honour_is_one_message(tmp_path, module, message):
    with pytest.raises(ConfigError, match=message):
        make_bridge(tmp_path / "run", module).execute(TRAIN)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": 0.1, "weight_decay": 0.1},
            "config sets learning_rate, weight_decay, but configure_optimizers",
        ),
        ({"compile": True}, "compile=true does not reach"),
        ({"eval_every": 5}, "there are no validation data"),
    ],
)
def test_settings_that_the_bridge_cannot_honour_are_one_message(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        make_bridge(tmp_path / "run", **changes).execute(TRAIN)


def test_forms_in_which_an_optimizer_may_come(tmp_path):
    class Plain(Classifier):
        def configure_optimizers(self):
            first, second = self.network[0].parameters(), self.network[2].parameters()
            return torch.optim.SGD([{"params": first, "lr": 0.1}, {"params": second, "lr": 0.02}])

    trainer = make_bridge(tmp_path / "plain", Plain)
    trainer.execute(TRAIN)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.1, 0.02]

    class Paired(Classifier):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.8)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]  # per epoch

    make_bridge(tmp_path / "paired", Paired).execute(TRAIN)
    assert figures(tmp_path / "paired", "lr") == [0.8] * 4 + [0.4] * 4 + [0.2] * 2


def test_without_lightning_the_error_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name.startswith("lightning"):
            raise ModuleNotFoundError("No module named 'lightning'", name="lightning")
        return real(name, *arguments, **keywords)

    import importlib

    monkeypatch.setattr(importlib, "import_module", missing)
    for make in (make_bridge, make_lightning):
        with pytest.raises(ConfigError, match=r"not installed: pip install 'gnomon\[lightning\]'"):
            make(tmp_path / "run").execute(TRAIN)
