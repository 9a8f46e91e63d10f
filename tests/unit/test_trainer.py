"""The loop, in this process, on models that take a second."""

import json
import math
import os
import signal
import statistics
import time
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch import nn

from gnomon.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    InterruptedRunError,
    LayoutError,
    RunDirectoryError,
    SpecError,
    TrackerWarning,
    TrainingError,
)
from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.base import Tracker
from gnomon.train.batches import move
from gnomon.train.config import GPTTrainingConfig, TrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer
from gnomon.train.optimizer import create_adamw
from gnomon.train.trainer import Trainer
from training_fixtures import read_curve, tiny_config

pytestmark = pytest.mark.usefixtures("one_thread")


class LineTrainer(Trainer):
    """Fits y = 2 x; `events` says what happens at which step."""

    def __init__(self, config: TrainingConfig, batches: int = 3) -> None:
        super().__init__(config)
        self.batches = batches
        self.events = {}

    def create_model(self):
        return nn.Linear(1, 1)

    def create_loader(self):
        return [(torch.full((4, 1), float(n)), torch.full((4, 1), 2.0 * n)) for n in range(1, self.batches + 1)]

    def training_step(self, batch):
        self.events.pop(self.step + 1, lambda: None)()
        inputs, targets = batch
        return nn.functional.mse_loss(self.model(inputs), targets)


def line_config(run_dir: Path, **changes) -> TrainingConfig:
    settings = {"run_dir": str(run_dir), "num_steps": 12, "learning_rate": 0.1, "device": "cpu", "progress": False}
    return TrainingConfig(**{**settings, **changes})


def test_the_loss_of_a_tiny_gpt_goes_down_in_30_steps(tmp_path):
    config = tiny_config(tmp_path / "run", num_steps=30, learning_rate=1e-2, eval_every=15, eval_batches=2)
    run = GPTTrainer(config).execute()
    rows = run.read_metrics()
    losses = [row["loss"] for row in rows if "loss" in row]
    evaluations = [row["eval_loss"] for row in rows if "eval_loss" in row]
    assert abs(losses[0] - math.log(256)) < 0.3  # an untrained model guesses
    assert statistics.mean(losses[-3:]) < losses[0] - 1.5
    assert evaluations[1] < evaluations[0]


def test_the_rows_have_the_figures_that_they_should(tmp_path):
    config = tiny_config(tmp_path / "run", num_steps=5, log_every=2, eval_every=4, peak_flops=1e11)
    rows = GPTTrainer(config).execute().read_metrics()
    assert [(row["step"], "eval_loss" in row) for row in rows] == [
        (2, False), (4, False), (4, True), (5, False), (5, True)
    ]  # fmt: skip
    first = rows[0]
    assert first["tokens"] == 2 * 8 * 32
    assert first["tokens_per_s"] == pytest.approx(8 * 32 / first["step_time_s"])
    # 6 FLOPs per token and weight of the matrices, and causal attention (halved)
    weights = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 128) + 256 * 32
    flops = 8 * 32 * 6 * (weights + 2 * 32 * 32 / 2)
    assert first["mfu"] == pytest.approx(flops / first["step_time_s"] / 1e11, rel=0.05)
    assert list(first) == ["step", "tokens", "loss", "lr", "grad_norm", "step_time_s", "tokens_per_s", "mfu", "time_s"]
    assert list(rows[2]) == ["step", "eval_loss", "time_s"]


def test_accumulation_equals_a_larger_micro_batch(tmp_path):
    def parameters(micro_batch: int) -> torch.Tensor:
        workload = {"seq_len": 32, "global_batch": 8, "micro_batch": micro_batch}
        trainer = GPTTrainer(tiny_config(tmp_path / "run", workload=workload))
        trainer.setup()
        for _ in range(5):
            trainer.run_step()
        return nn.utils.parameters_to_vector(trainer.module.parameters())

    whole, split = parameters(8), parameters(2)
    assert (whole - split).norm() / whole.norm() < 1e-6


def test_setup_and_steps_alone_write_nothing(tmp_path):
    trainer = GPTTrainer(tiny_config(tmp_path / "run"))
    trainer.setup()
    loss = trainer.run_step()
    assert trainer.step == 1
    assert not loss.requires_grad
    trainer.teardown()
    trainer.teardown()
    assert not (tmp_path / "run").exists()


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tmp_path):
    workload = {"seq_len": 32, "global_batch": 4, "precision": "bf16"}
    trainer = GPTTrainer(tiny_config(tmp_path / "run", workload=workload))
    trainer.setup()
    dtypes = []
    trainer.module.head.register_forward_hook(lambda module, inputs, output: dtypes.append(output.dtype))
    trainer.run_step()
    assert dtypes == [torch.bfloat16]
    assert {parameter.dtype for parameter in trainer.module.parameters()} == {torch.float32}


def test_weight_decay_is_for_matrices_only(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    optimizer = create_adamw(model, line_config(tmp_path / "run", weight_decay=0.5))
    assert {len(group["params"]): group["weight_decay"] for group in optimizer.param_groups} == {1: 0.5, 3: 0.0}
    assert all(group["fused"] for group in optimizer.param_groups)


def test_clipping_bounds_the_update_and_reports_the_norm_before_it(tmp_path):
    trainer = LineTrainer(line_config(tmp_path / "run", grad_clip=1e-3))
    trainer.create_optimizer = lambda: torch.optim.SGD(trainer.module.parameters(), lr=0.1)
    trainer.setup()
    before = nn.utils.parameters_to_vector(trainer.module.parameters()).detach().clone()
    trainer.run_step()
    moved = (nn.utils.parameters_to_vector(trainer.module.parameters()) - before).norm().item()
    assert trainer.grad_norm.item() > 1e-3
    assert moved == pytest.approx(1e-3 * trainer.create_schedule()(1), rel=1e-2)


def test_any_model_trains_and_a_loader_that_ends_begins_anew(tmp_path):
    run = LineTrainer(line_config(tmp_path / "run", log_every=3, grad_clip=None)).execute()
    rows = run.read_metrics()
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {(row["tokens"], row["grad_norm"], row["mfu"]) for row in rows} == {(None, None, None)}


def test_everything_off_leaves_only_the_run_directory(tmp_path):
    run = LineTrainer(line_config(tmp_path / "run", log_every=0)).execute()
    assert run.read_metrics() == []
    assert not run.checkpoints.exists()
    assert json.loads((run.path / "training.json").read_text(encoding="utf-8"))["num_steps"] == 12


def test_a_loader_without_batches_and_an_evaluation_without_a_loader_are_errors(tmp_path):
    with pytest.raises(DataError, match="no batch at all"):
        LineTrainer(line_config(tmp_path / "empty"), batches=0).execute()
    with pytest.raises(ConfigError, match="LineTrainer has no create_evaluation_loader"):
        LineTrainer(line_config(tmp_path / "unevaluated", eval_every=1)).execute()
    assert not (tmp_path / "unevaluated").exists()


def test_a_batch_may_be_a_mapping_of_tensors(tmp_path):
    class NamedTrainer(LineTrainer):
        def create_loader(self):
            return [{"inputs": inputs, "targets": targets} for inputs, targets in super().create_loader()]

        def create_evaluation_loader(self):
            return self.create_loader()

        def training_step(self, batch):
            return super().training_step((batch["inputs"], batch["targets"]))

    rows = NamedTrainer(line_config(tmp_path / "run", eval_every=6)).execute().read_metrics()
    assert [row["step"] for row in rows if "eval_loss" in row] == [6, 12]


def test_a_run_is_never_overwritten_but_one_made_in_advance_is_used(tmp_path):
    run = RunDirectory.create(tmp_path / "run", "pipeline: true\n", {})
    LineTrainer(line_config(run.path)).execute()
    assert run.config.read_text(encoding="utf-8") == "pipeline: true\n"
    before = run.metrics.read_bytes()
    with pytest.raises(RunDirectoryError, match=r"never overwritten\. Choose another run_dir, or .* resume=true"):
        LineTrainer(line_config(run.path)).execute()
    assert run.metrics.read_bytes() == before


def test_a_run_directory_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="cannot be made"):
        LineTrainer(line_config(tmp_path / "file" / "run")).execute()


def test_the_wrong_number_of_ranks_and_a_validation_text_too_short_are_errors(tmp_path):
    with pytest.raises(LayoutError, match=r"layout\.dp=2 needs 2 rank\(s\), but 1 started"):
        GPTTrainer(tiny_config(tmp_path / "run", layout={"dp": 2})).execute()
    data = {**tiny_config(tmp_path / "run").data.to_mapping(), "max_bytes": 1200, "validation_fraction": 0.05}
    with pytest.raises(DataError, match="The validation text has 60 bytes, which make 1 sequences"):
        GPTTrainer(tiny_config(tmp_path / "run", data=data, eval_every=2)).execute()
    model = {**tiny_config(tmp_path / "run").model.to_mapping(), "attention_sinks": True}
    trainer = GPTTrainer(tiny_config(tmp_path / "sinks", model=model))
    with pytest.raises(SpecError, match="attention_sinks"):
        trainer.execute()


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(tmp_path):
    trainer = LineTrainer(line_config(tmp_path / "run", checkpoint_every=2, log_every=1))
    trainer.events[6] = lambda: trainer.module.weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match=r"The loss is nan at step 6 .*step-000004' is the last good checkpoint"):
        trainer.execute()
    assert read_curve(tmp_path / "run")[-1][0] == 5
    assert (tmp_path / "run" / "checkpoints" / "step-000004").is_dir()


def test_a_checkpoint_of_nan_never_replaces_a_good_one(tmp_path):
    trainer = LineTrainer(line_config(tmp_path / "run", checkpoint_every=2, log_every=0, keep_checkpoints=1))
    trainer.events[5] = lambda: trainer.module.weight.data.fill_(math.nan)
    with pytest.raises(TrainingError, match="at step 6"):
        trainer.execute()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000004"]


class RootTrainer(LineTrainer):
    """Has a finite loss in step 6, but the derivative of sqrt(0) times 0, which is not a number."""

    def training_step(self, batch):
        loss = super().training_step(batch)
        return loss + 0.0 * (self.module.weight * 0.0).sum().sqrt() if self.step + 1 == 6 else loss

    def create_evaluation_loader(self):
        return [(torch.ones(4, 1), torch.ones(4, 1))]


def test_weights_that_are_not_finite_are_never_saved_though_the_loss_is(tmp_path):
    config = line_config(tmp_path / "run", checkpoint_every=1, keep_checkpoints=1, grad_clip=None, log_every=1)
    with pytest.raises(TrainingError, match=r"The weight weight is not finite at step 6 .*step-000005' is the last"):
        RootTrainer(config).execute()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000005"]


@pytest.mark.parametrize("changes", [{}, {"eval_every": 6, "log_every": 1}, {"num_steps": 12}, {"ema_decay": 0.5}])
def test_a_run_never_ends_well_with_weights_that_are_not_finite(tmp_path, changes):
    settings = {"num_steps": 6, "log_every": 0, "grad_clip": None, **changes}
    with pytest.raises(TrainingError, match=r"The weight weight is not finite at step \d+ .*Start again"):
        RootTrainer(line_config(tmp_path / "run", **settings)).execute()


def test_an_evaluation_without_a_finite_loss_points_at_its_data_where_the_weights_are_finite(tmp_path):
    class Evaluated(LineTrainer):
        def create_evaluation_loader(self):
            return [(torch.full((4, 1), math.inf), torch.ones(4, 1))]

    with pytest.raises(TrainingError, match=r"eval_loss is (inf|nan) at step 2, though all weights are finite"):
        Evaluated(line_config(tmp_path / "run", eval_every=2)).execute()


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_stops_at_the_step_boundary_with_a_checkpoint_and_the_run_goes_on_from_there(tmp_path, name, code):
    whole = LineTrainer(line_config(tmp_path / "whole", log_every=1)).execute()
    trainer = LineTrainer(line_config(tmp_path / "run", log_every=1))
    trainer.events[5] = lambda: os.kill(os.getpid(), signal.Signals[name])
    with pytest.raises(InterruptedRunError, match=rf"{name} arrived; training stopped after step 5 .*step-000005"):
        trainer.execute()
    error = InterruptedRunError("")
    try:
        trainer = LineTrainer(line_config(tmp_path / "run", log_every=1, resume=True))
        trainer.events[6] = lambda: os.kill(os.getpid(), signal.Signals[name])
        trainer.execute()
    except InterruptedRunError as caught:
        error = caught
    assert error.exit_code == code
    LineTrainer(line_config(tmp_path / "run", log_every=1, resume=True)).execute()
    steps = [step for step, *_ in read_curve(tmp_path / "run")]
    assert steps == list(range(1, 13))
    assert len(read_curve(whole.path)) == 12


def test_a_run_directory_in_use_is_refused(tmp_path):
    trainer, second = (LineTrainer(line_config(tmp_path / "run", resume=True)) for _ in range(2))
    errors = []

    def start_a_second_one():
        with pytest.raises(RunDirectoryError) as caught:
            second.execute()
        errors.append(str(caught.value))

    trainer.events[3] = start_a_second_one
    trainer.execute()
    assert "Another process is training in" in errors[0]
    second.execute()  # the lock goes with the first trainer


def test_step_time_leaves_out_evaluation_and_checkpoints(tmp_path):
    class SlowlySaved(LineTrainer):
        def create_evaluation_loader(self):
            time.sleep(0.2)
            return self.create_loader()

    config = line_config(tmp_path / "run", num_steps=4, log_every=1, eval_every=1, checkpoint_every=1)
    rows = SlowlySaved(config).execute().read_metrics()
    assert statistics.median(row["step_time_s"] for row in rows if "loss" in row) < 0.1


def test_settings_that_do_not_fit_the_checkpoint_leave_those_of_the_run(tmp_path):
    run = GPTTrainer(tiny_config(tmp_path / "run", checkpoint_every=2)).execute()
    before = (run.path / "training.json").read_bytes()
    with pytest.raises(CheckpointError, match="seed was"):
        GPTTrainer(tiny_config(run.path, checkpoint_every=2, resume=True, seed=99)).execute()
    assert (run.path / "training.json").read_bytes() == before


def test_a_tracker_that_fails_is_a_warning_and_the_run_goes_on(tmp_path):
    class Broken(Tracker):
        def log(self, row):
            raise OSError("gone")

        def close(self):
            raise SystemExit(1)

    class TrackedTrainer(LineTrainer):
        def create_trackers(self, run):
            return [Broken(), *super().create_trackers(run)]

    with pytest.warns(TrackerWarning, match="A tracker failed"):
        run = TrackedTrainer(line_config(tmp_path / "run", log_every=3)).execute()
    assert [row["step"] for row in run.read_metrics()] == [3, 6, 9, 12]


def test_a_full_attention_mask_is_refused_because_the_model_is_causal(tmp_path):
    workload = {"seq_len": 16, "global_batch": 4, "attention_mask": "full"}
    with pytest.raises(SpecError, match="attention is causal"):
        GPTTrainingConfig.from_mapping({**tiny_config(tmp_path / "run").to_mapping(), "workload": workload})


def test_moving_a_batch_keeps_its_kind_and_what_is_not_a_tensor():
    Pair = namedtuple("Pair", "x y")
    moved = move({"pair": Pair(torch.ones(1), 3), "name": "a", "list": [torch.zeros(2)]}, torch.device("cpu"))
    assert isinstance(moved["pair"], Pair)
    assert moved["pair"].y == 3
    assert moved["name"] == "a"
    assert moved["list"][0].shape == (2,)
