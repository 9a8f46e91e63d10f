"""What the loop does besides steps, in this process: callbacks, averages, precision, stopping, keeping checkpoints."""

import json
import math
import os
import random
import signal
from typing import Any

import pytest
import torch

from gnomon.errors import CheckpointError, ConfigError, InterruptedRunError, TrainingError
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.best import BestMetric
from gnomon.train.callbacks import Callback
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from line_fixtures import LineTrainer, config, curve_and_state, interrupted_and_resumed
from training_fixtures import read_curve

pytestmark = pytest.mark.usefixtures("one_thread")


def steps_kept(run: RunDirectory) -> list[int]:
    return sorted(read_state(path)["step"] for path in list_checkpoints(run.checkpoints))


def test_the_numbers_drawn_do_not_depend_on_what_trackers_draw(tmp_path):
    class DrawingTrainer(LineTrainer):
        def create_trackers(self, run):
            random.random(), torch.rand(1)
            return super().create_trackers(run)

        def training_step(self, batch):
            self.drawn = (random.random(), torch.rand(1).item())
            return super().training_step(batch)

    class PlainTrainer(DrawingTrainer):
        create_trackers = LineTrainer.create_trackers

    trainers = [made(config(tmp_path / made.__name__, num_steps=2)) for made in (DrawingTrainer, PlainTrainer)]
    for trainer in trainers:
        trainer.execute()
    assert trainers[0].drawn == trainers[1].drawn


# Callbacks


class Recorder(Callback):
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def on_train_start(self, trainer):
        self.calls.append(f"{self.name} start {trainer.step}")

    def on_evaluation_end(self, trainer, metrics):
        self.calls.append(f"{self.name} evaluation {trainer.step} {sorted(metrics)}")

    def on_checkpoint(self, trainer, path):
        self.calls.append(f"{self.name} {path.name}")

    def on_train_end(self, trainer):
        self.calls.append(f"{self.name} end {trainer.step}")


class CountingRecorder(Recorder):
    seen = 0

    def on_step_end(self, trainer, loss):
        self.seen += 1
        self.calls.append(f"{self.name} step {trainer.step} {loss.requires_grad}")

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def test_callbacks_are_called_in_order_and_only_where_they_override(tmp_path):
    calls: list[str] = []
    callbacks = [CountingRecorder("a", calls), Recorder("b", calls), Callback()]
    trainer = LineTrainer(config(tmp_path / "run", num_steps=2, eval_every=2, checkpoint_every=2), callbacks)
    trainer.execute()
    assert calls == [
        "a start 0", "b start 0", "a step 1 False", "a step 2 False",
        "a evaluation 2 ['eval_loss']", "b evaluation 2 ['eval_loss']", "a step-000002", "b step-000002",
        "a end 2", "b end 2",
    ]  # fmt: skip
    assert len(trainer._on_step_end) == 1  # the others cost nothing per step


def test_a_resumed_run_gives_callbacks_their_state_back(tmp_path):
    calls: list[str] = []
    counter = CountingRecorder("a", calls)
    _, trainer = interrupted_and_resumed(lambda c: LineTrainer(c, [Callback(), counter]), tmp_path / "run", at=5)
    assert trainer.callbacks[1].seen == 12
    fresh = CountingRecorder("c", [])
    LineTrainer(config(tmp_path / "run", num_steps=15, resume=True), [Callback(), fresh]).execute()
    assert fresh.seen == 5 + 10  # the checkpoint of step 5 is the newest, and 10 steps followed


# Early stopping and which checkpoints stay


@pytest.mark.parametrize(("mode", "sign"), [("min", 1.0), ("max", -1.0)])
def test_early_stopping_counts_evaluations_without_a_better_one(tmp_path, mode, sign):
    losses = {2: 5.0, 4: 3.0, 6: 3.5, 8: 2.95, 10: 4.0, 12: 4.0, 14: 1.0}
    settings = {"num_steps": 14, "eval_every": 2, "best_metric": "eval_loss", "best_mode": mode, "keep_checkpoints": 1}
    trainer = LineTrainer(
        config(tmp_path / "run", early_stopping=3, early_stopping_delta=0.1, **settings),
        eval_losses={step: sign * loss for step, loss in losses.items()},
    )
    trainer.execute()
    assert trainer.step == 10  # 6, 8 (better by less than 0.1) and 10
    assert (trainer._best.value, trainer._best.step) == (sign * 3.0, 4)
    assert trainer.is_done


def test_a_run_that_stops_early_saves_where_it_stopped_and_resuming_it_does_nothing_more(tmp_path):
    settings = {"eval_every": 2, "best_metric": "eval_loss", "early_stopping": 2, "checkpoint_every": 100}
    losses = {2: 1.0, 4: 2.0, 6: 3.0, 8: 0.0}
    run = LineTrainer(config(tmp_path / "run", **settings), eval_losses=losses).execute()
    assert steps_kept(run) == [2, 6]
    again = LineTrainer(config(tmp_path / "run", resume=True, **settings), eval_losses=losses)
    again.execute()
    assert again.step == 6


def test_the_waiting_of_early_stopping_goes_on_after_a_resume(tmp_path):
    settings = {"eval_every": 2, "best_metric": "eval_loss", "early_stopping": 3}
    losses = {2: 1.0, 4: 2.0, 6: 3.0, 8: 3.0, 10: 0.5}
    _, trainer = interrupted_and_resumed(
        lambda c: LineTrainer(c, eval_losses=losses), tmp_path / "run", at=5, **settings
    )
    assert trainer.step == 8


def test_a_best_metric_that_is_never_measured_names_the_nearest_one(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run", eval_every=2, best_metric="eval_los"))
    with pytest.raises(ConfigError, match=r"best_metric='eval_los' .* Did you mean 'eval_loss'\?"):
        trainer.execute()


def test_nan_is_never_the_best():
    best = BestMetric("x", "max", patience=2)
    assert [best.update(step, {"x": value}) for step, value in enumerate([math.nan, 1.0, math.nan, 0.5])] == [
        False, True, False, False
    ]  # fmt: skip
    assert best.exhausted


def test_the_best_checkpoint_stays_beyond_the_newest_ones(tmp_path):
    losses = {2: 5.0, 4: 1.0, 6: 2.0, 8: 3.0, 10: 4.0, 12: 5.0}
    settings = {"eval_every": 2, "checkpoint_every": 2, "best_metric": "eval_loss", "keep_checkpoints": 2}
    run = LineTrainer(config(tmp_path / "run", **settings), eval_losses=losses).execute()
    assert steps_kept(run) == [4, 10, 12]
    assert read_state(list_checkpoints(run.checkpoints)[0])["best"]["step"] == 4


def test_keep_every_keeps_checkpoints_for_good(tmp_path):
    run = LineTrainer(config(tmp_path / "run", checkpoint_every=1, keep_every=5, keep_checkpoints=1)).execute()
    assert steps_kept(run) == [5, 10, 12]


# Averaged weights


def test_the_average_is_the_one_computed_by_hand_and_it_is_what_is_evaluated(tmp_path):
    decay = 0.8
    trainer = LineTrainer(config(tmp_path / "run", ema_decay=decay))
    trainer.setup()
    average = trainer.parameters().double()
    for _ in range(5):
        trainer.run_step()
        average = decay * average + (1.0 - decay) * trainer.parameters().double()
    found = torch.cat([trainer._average.tensors[name].flatten() for name in ("weight", "bias")]).double()
    assert torch.allclose(found, average, rtol=1e-6, atol=0.0)
    before = trainer.parameters()
    expected = ((average[0] + average[1]) - 3.0) ** 2  # at x = 1, where y = 3
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert torch.equal(trainer.parameters(), before)
    trainer.teardown()


def test_averaged_weights_resume_bit_for_bit_and_are_not_mixed_with_runs_without(tmp_path):
    settings = {"ema_decay": 0.9, "checkpoint_every": 12, "eval_every": 4}
    whole = LineTrainer(config(tmp_path / "whole", **settings)).execute()
    run, _ = interrupted_and_resumed(LineTrainer, tmp_path / "run", at=7, **settings)
    assert curve_and_state(run) == curve_and_state(whole)
    with pytest.raises(CheckpointError, match="ema was True and is None"):
        LineTrainer(config(tmp_path / "run", resume=True, num_steps=20)).execute()


# fp16, schedulers and metrics in the checkpoint


def test_fp16_scales_the_loss_and_resumes_with_its_scale(tmp_path):
    class HalfTrainer(LineTrainer):
        def setup(self):
            super().setup()
            # short enough for updates of the scale within the run, and no overflow
            self._scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=4)

    settings = {"precision": "fp16", "grad_clip": None, "checkpoint_every": 12}
    whole = HalfTrainer(config(tmp_path / "whole", **settings))
    run = whole.execute()
    exact = LineTrainer(config(tmp_path / "exact", grad_clip=None)).execute()
    losses, expected = ([loss for _, loss, *_ in read_curve(each.path)] for each in (run, exact))
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != expected
    state = read_state(list_checkpoints(run.checkpoints)[0])["scaler"]
    assert state["scale"] == 2.0**7  # doubled after 4, 8 and 12 steps
    resumed, trainer = interrupted_and_resumed(HalfTrainer, tmp_path / "run", at=6, **settings)
    assert trainer._scaler.get_scale() == 2.0**7
    assert curve_and_state(resumed) == curve_and_state(run)


def test_fp16_leaves_out_a_step_whose_gradients_overflow(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run", precision="fp16"))
    trainer.setup()
    before, scale = trainer.parameters(), trainer._scaler.get_scale()
    trainer._training_step = lambda batch: trainer.model(batch[0]).sum() * 1e36
    trainer.run_step()
    assert torch.equal(trainer.parameters(), before)
    assert trainer._scaler.get_scale() == scale / 2
    assert trainer.step == 1
    trainer.teardown()


class MeasuredTrainer(LineTrainer):
    """Logs the mean of all targets since the last row."""

    def create_train_metrics(self):
        import torchmetrics

        return {"mean": torchmetrics.MeanMetric(), "seen": torchmetrics.SumMetric()}

    def training_step(self, batch):
        self.train_metrics["mean"].update(batch[1])
        self.train_metrics["seen"].update(len(batch[1]))
        return super().training_step(batch)


def test_training_metrics_are_logged_reset_and_kept_in_the_checkpoint(tmp_path):
    settings = {"log_every": 6, "checkpoint_every": 4}
    whole = MeasuredTrainer(config(tmp_path / "whole", **settings)).execute()
    rows = [{key: row[key] for key in ("train_mean", "train_seen")} for row in whole.read_metrics()]
    assert rows == [{"train_mean": 2 * (2.5 + 2.5) + 1.0, "train_seen": 24.0}] * 2  # x is 2.5 on average, plus 0 to 5
    run, _ = interrupted_and_resumed(MeasuredTrainer, tmp_path / "run", at=4, **settings)  # 4 of 6 steps were counted
    assert [{key: row[key] for key in ("train_mean", "train_seen")} for row in run.read_metrics()] == rows


# Asynchronous checkpoints


def test_asynchronous_checkpoints_are_the_same_files(tmp_path):
    runs = [
        MeasuredTrainer(
            config(tmp_path / name, async_checkpoints=name == "async", checkpoint_every=3, ema_decay=0.5)
        ).execute()
        for name in ("sync", "async")
    ]
    assert steps_kept(runs[0]) == steps_kept(runs[1]) == [9, 12]
    for mine, other in zip(*(list_checkpoints(run.checkpoints) for run in runs), strict=True):
        states = [read_state(path) for path in (mine, other)]
        tensors = [state.pop("files")["__0_0.distcp"] for state in states]  # size and checksum
        assert (states[0], tensors[0]) == (states[1], tensors[1])
        assert {path.name for path in mine.iterdir()} == {path.name for path in other.iterdir()}


def test_an_asynchronous_run_resumes_bit_for_bit(tmp_path):
    settings = {"async_checkpoints": True, "checkpoint_every": 12}
    whole = LineTrainer(config(tmp_path / "whole", **settings)).execute()
    run, _ = interrupted_and_resumed(LineTrainer, tmp_path / "run", at=7, **settings)
    assert curve_and_state(run) == curve_and_state(whole)


def test_a_failed_asynchronous_checkpoint_is_raised_by_the_next_save_with_the_previous_one_intact(
    tmp_path, monkeypatch
):
    from gnomon.train import tensor_store

    real, saves = tensor_store.save_tensors, []

    def full_disk(*arguments: Any) -> None:
        saves.append(trainer.step)
        if len(saves) == 2:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(tensor_store, "save_tensors", full_disk)
    trainer = LineTrainer(config(tmp_path / "run", async_checkpoints=True, checkpoint_every=3))
    with pytest.raises(CheckpointError, match=r"step 6 could not .*the disk is full.*step-000003' is intact"):
        trainer.execute()
    assert trainer.step == 9  # the next save
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]


def test_a_failure_of_the_last_asynchronous_checkpoint_ends_the_run_with_an_error(tmp_path, monkeypatch):
    from gnomon.train import tensor_store

    def full_disk(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_store, "save_tensors", full_disk)
    with pytest.raises(CheckpointError, match="There is no earlier one"):
        LineTrainer(config(tmp_path / "run", async_checkpoints=True, checkpoint_every=12)).execute()


# Signals and failures


def test_sigusr2_stops_with_a_checkpoint_and_the_exit_code_for_requeueing(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run", async_checkpoints=True))
    trainer.events[4] = lambda: os.kill(os.getpid(), signal.SIGUSR2)
    with pytest.raises(InterruptedRunError, match=r"SIGUSR2 .* step 4 .*step-000004' is complete") as caught:
        trainer.execute()
    assert caught.value.exit_code == 140
    assert read_state(tmp_path / "run" / "checkpoints" / "step-000004")["step"] == 4


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), MemoryError()])
def test_too_little_memory_names_the_step_and_what_to_change(tmp_path, error):
    def fail() -> None:
        raise error

    trainer = LineTrainer(config(tmp_path / "run"))
    trainer.events[3] = fail
    with pytest.raises(TrainingError, match=r"Out of memory in step 3: .*Halve micro_batch .*strategy=fsdp"):
        trainer.execute()


def test_the_memory_of_a_real_allocation_that_is_too_large(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run"))
    trainer.events[1] = lambda: torch.empty(2**55)
    with pytest.raises(TrainingError, match=r"Out of memory in step 1: .*can't allocate memory"):
        trainer.execute()


def test_other_errors_of_a_step_stay_what_they_are(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run"))
    trainer.events[1] = lambda: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.execute()


def test_nan_under_asynchronous_checkpoints_names_the_last_good_one(tmp_path):
    trainer = LineTrainer(config(tmp_path / "run", async_checkpoints=True, checkpoint_every=2))
    trainer.events[5] = lambda: trainer.module.weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"The loss is nan at step 5 .*step-000004' is the last good checkpoint"):
        trainer.execute()


def test_compiled_training_computes_the_same(tmp_path):
    plain, compiled = (
        LineTrainer(config(tmp_path / str(flag), num_steps=3, compile=flag, grad_clip=None)).execute()
        for flag in (False, True)
    )
    losses = [[loss for _, loss, *_ in read_curve(run.path)] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    names = json.loads((compiled.path / "training.json").read_text(encoding="utf-8"))
    assert names["compile"] is True
