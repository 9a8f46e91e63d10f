"""Supervised training: the same on one and two real ranks, resumed in the middle of an epoch, and what it refuses."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import nn

from gnomon.errors import ConfigError, DataError, RankFailedError, SpecError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from gnomon.train.supervised import SupervisedTrainer
from supervised_fixtures import MODEL, TEST, TRAIN, VALIDATION, make_trainer, newest_tensors, rows, train

TESTS = Path(__file__).parents[1]
TOLERANCE = 1e-5  # relative, of one rank against two: sums of gradients are rounded in another order


pytestmark = pytest.mark.usefixtures("one_thread")


def launch(folder: Path, ranks: int, *scenarios: str) -> list[dict[str, Any]]:
    """Run scenarios in real ranks; return what each rank saw in the last one."""
    log_dir = folder / f"logs-{ranks}-{scenarios[0]}"
    arguments = (str(folder), *scenarios)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
        run_ranks(
            RankJob(module="supervised_worker", arguments=arguments, log_dir=log_dir, ranks=ranks, threads_per_rank=1)
        )
    return [read(folder, scenarios[-1], rank) for rank in range(ranks)]


def read(folder: Path, scenario: str, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{scenario}-{rank}.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """An uninterrupted run in this process: its folder and its last weights."""
    folder = tmp_path_factory.mktemp("alone")
    trainer = train(folder / "whole")
    return folder, nn.utils.parameters_to_vector(trainer.module.parameters()).detach()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two ranks went through the scenarios."""
    folder = tmp_path_factory.mktemp("two")
    launch(folder, 2, "whole", "stopped", "normalised", "failing_disk", "diverged")
    return folder


def test_metrics_are_those_of_the_samples_each_counted_once(alone):
    folder, _ = alone
    found = rows(folder / "whole", "eval_loss", "eval_accuracy")
    trainer = make_trainer(folder / "again", num_steps=5)
    trainer.execute(TRAIN, VALIDATION)
    with torch.no_grad():
        outputs = trainer.module(VALIDATION[0])
    right = (outputs.argmax(1) == VALIDATION[1]).sum().item()
    assert found[0]["eval_accuracy"] == pytest.approx(right / 37, abs=1e-7)
    assert found[0]["eval_loss"] == pytest.approx(nn.functional.cross_entropy(outputs, VALIDATION[1]).item(), rel=1e-6)


@pytest.mark.torch_dist
def test_two_ranks_measure_an_uneven_set_as_one_does(alone, two):
    mine, theirs = (rows(folder / "whole", "eval_accuracy", "test_accuracy") for folder in (alone[0], two))
    assert mine == theirs  # exactly
    assert [set(row) for row in mine] == [{"step", "eval_accuracy"}] * 2 + [{"step", "test_accuracy"}]
    losses = [
        [row.get("eval_loss", row.get("test_loss")) for row in rows(folder / "whole", "eval_loss", "test_loss")]
        for folder in (alone[0], two)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE)


@pytest.mark.torch_dist
def test_two_ranks_train_to_the_weights_of_one(alone, two):
    weights = [torch.tensor(read(two, "whole", rank)["weights"]) for rank in (0, 1)]
    assert torch.equal(*weights)
    assert (weights[0] - alone[1]).norm() <= TOLERANCE * alone[1].norm()


@pytest.mark.torch_dist
def test_a_run_stopped_in_the_middle_of_an_epoch_goes_on_bit_for_bit_and_on_another_number_of_ranks(
    tmp_path, alone, two
):
    message = read(two, "stopped", 1)["message"]
    assert "SIGTERM arrived; training stopped after step 6 of 10" in message
    assert read_state(two / "stopped" / "checkpoints" / "step-000006")["loader"]["position"] == 32  # samples
    shutil.copytree(two / "stopped", tmp_path / "stopped")  # for one rank
    found = launch(two, 2, "resumed")
    assert rows(two / "stopped", "loss", "eval_accuracy") == rows(two / "whole", "loss", "eval_accuracy")
    assert newest_tensors(two / "stopped") == newest_tensors(two / "whole")
    assert found[0]["weights"] == read(two, "whole", 0)["weights"]

    trainer = train(tmp_path / "stopped", resume=True)
    weights = nn.utils.parameters_to_vector(trainer.module.parameters()).detach()
    assert (weights - alone[1]).norm() <= TOLERANCE * alone[1].norm()
    losses = [[row["loss"] for row in rows(path, "loss")] for path in (tmp_path / "stopped", alone[0] / "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=TOLERANCE)


@pytest.mark.torch_dist
def test_running_statistics_are_the_mean_over_the_ranks_and_do_not_depend_on_when_they_were_saved(two):
    first, second = (read(two, "normalised", rank) for rank in (0, 1))
    assert first["gathered"] != second["gathered"]
    mean = [(a + b) / 2 for a, b in zip(first["gathered"], second["gathered"], strict=True)]
    assert first["once"] == second["once"] == pytest.approx(mean, rel=1e-6)
    assert first["twice"] == second["twice"] == first["once"]
    assert rows(two / "bn_twice", "loss", "eval_loss") == rows(two / "bn_once", "loss", "eval_loss")
    (warning,) = first["warnings"]
    assert "The layer '1' is a BatchNorm1d: each of the 2 rank(s) normalises over its own micro-batch" in warning
    assert second["warnings"] == []


@pytest.mark.torch_dist
def test_a_disk_that_fails_under_one_rank_is_told_by_all_at_the_next_save(two):
    for rank in (0, 1):
        found = read(two, "failing_disk", rank)
        assert found["type"] == "CheckpointError"
        assert "step 6 could not be written" in found["message"]
        assert "step-000003' is intact" in found["message"]
        assert found["step"] == 9
    assert [path.name for path in (two / "failing_disk" / "checkpoints").iterdir()] == ["step-000003"]


@pytest.mark.torch_dist
def test_nan_on_one_rank_is_told_by_all_with_the_step_and_the_last_good_checkpoint(two):
    for rank in (0, 1):
        found = read(two, "diverged", rank)
        assert found["type"] == "TrainingError"
        assert "The loss is nan at step 6" in found["message"]  # the weights of step 5 are NaN, too
        assert "step-000004' is the last good checkpoint" in found["message"]


@pytest.mark.torch_dist
def test_a_run_killed_while_an_asynchronous_checkpoint_is_written_goes_on_from_the_one_before(tmp_path):
    with pytest.raises(RankFailedError, match="SIGKILL"):
        launch(tmp_path, 1, "killed")
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert [path.name for path in list_checkpoints(checkpoints)] == ["step-000003"]
    assert [path.name for path in checkpoints.glob(".step-*.tmp")] == [".step-000006.tmp"]
    settings = {"async_checkpoints": True, "checkpoint_every": 3, "eval_every": 0}
    make_trainer(tmp_path / "killed", resume=True, **settings).execute(TRAIN)
    make_trainer(tmp_path / "whole", **settings).execute(TRAIN)
    assert rows(tmp_path / "killed", "loss") == rows(tmp_path / "whole", "loss")
    assert newest_tensors(tmp_path / "killed") == newest_tensors(tmp_path / "whole")
    assert not list(checkpoints.glob(".step-*.tmp"))


def test_epochs_are_counted_in_steps_and_the_module_is_returned(tmp_path):
    trainer = make_trainer(tmp_path / "run", num_steps=0, epochs=3, eval_every=0, checkpoint_every=0)
    train_, validation, test, module = trainer.execute(TRAIN, None, TEST)
    assert trainer.step == 3 * (70 // 16)
    assert train_ is TRAIN
    assert validation is None
    assert test is TEST
    assert module is trainer.module
    assert set(rows(tmp_path / "run", "test_loss", "test_accuracy")[0]) == {"step", "test_loss", "test_accuracy"}


def test_the_accumulated_gradient_is_that_of_the_whole_batch(tmp_path):
    weights = []
    for accumulation in (1, 4):
        trainer = train(tmp_path / str(accumulation), accumulation=accumulation)
        weights.append(nn.utils.parameters_to_vector(trainer.module.parameters()).detach())
    assert (weights[0] - weights[1]).norm() <= TOLERANCE * weights[0].norm()


@pytest.mark.parametrize(
    ("loss", "metric", "outputs", "targets", "expected"),
    [
        ("mse", "rmse", [[1.0], [2.0]], [[0.0], [0.0]], 2.5**0.5),
        ("mae", "mae", [[1.0], [2.0]], [[0.0], [0.0]], 1.5),
        ("huber", "mse", [[0.5], [3.0]], [[0.0], [0.0]], 4.625),
        ("binary_cross_entropy", "accuracy", [[-1.0], [2.0], [3.0]], [[0.0], [1.0], [0.0]], 2 / 3),
        ("cross_entropy", "accuracy", [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], [2, 1], 0.5),
    ],
)
def test_every_metric_is_what_its_name_says(tmp_path, loss, metric, outputs, targets, expected):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, inputs):
            return inputs * self.scale

    data = (torch.tensor(outputs), torch.tensor(targets))
    config = {**make_trainer(tmp_path / "run").config.to_mapping(), "num_steps": 1, "batch": len(targets)}
    trainer = SupervisedTrainer({**config, "eval_every": 0}, Fixed, loss=loss, metrics=[metric], optimizer="sgd")
    trainer.execute(data)
    trainer._validation = trainer._train
    trainer.setup()
    trainer.module.scale.data.fill_(1.0)
    assert trainer.evaluate()[f"eval_{metric}"] == pytest.approx(expected, rel=1e-6)
    trainer.teardown()


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "binary_cross_entropy"])
def test_a_number_per_sample_is_one_per_output_and_arrays_may_have_64_bits(tmp_path, loss):
    inputs = np.random.default_rng(0).normal(size=(32, 4))
    targets = (inputs.sum(1) > 0).astype(np.float64)
    metrics = ["accuracy"] if loss == "binary_cross_entropy" else ["rmse", "mae"]
    found = []
    for shape in ((32,), (32, 1)):
        data = (inputs, targets.reshape(shape))
        config = make_trainer(tmp_path / f"{len(shape)}", num_steps=3, eval_every=3, checkpoint_every=0).config
        SupervisedTrainer(config, {"name": "mlp", "num_outputs": 1}, loss, metrics).execute(data, data)
        found.append(rows(tmp_path / f"{len(shape)}", "loss", "eval_loss", *(f"eval_{name}" for name in metrics)))
    assert found[0] == found[1]
    config = config.model_copy(update={"run_dir": str(tmp_path / "wrong")})
    trainer = SupervisedTrainer(config, {"name": "mlp", "num_outputs": 2}, loss)
    with pytest.raises(DataError, match=r"A target has the shape \(\), but the model returns \(2,\)"):
        trainer.execute((inputs, targets), (inputs, targets))


def test_a_metric_of_several_values_is_numbered(tmp_path):
    class PerClass(SupervisedTrainer):
        def create_metrics(self):
            return {"recall": torchmetrics.classification.MulticlassRecall(3, average=None)}

    config = make_trainer(tmp_path / "run").config
    PerClass(config, MODEL).execute(TRAIN, VALIDATION)
    names = {"eval_recall_0", "eval_recall_1", "eval_recall_2"}
    assert set(rows(tmp_path / "run", *names)[0]) == {"step", *names}


@pytest.mark.parametrize(
    ("changes", "data", "error", "message"),
    [
        ({}, (None, VALIDATION), DataError, "no training data"),
        ({}, (TRAIN, None), ConfigError, "eval_every=5, but there is no validation data"),
        ({"batch": 100}, (TRAIN, VALIDATION), DataError, r"batch=100, but the training data has only 70"),
        ({"batch": 15, "accumulation": 2}, (TRAIN, VALIDATION), ConfigError, "Set batch to a multiple of 2"),
        ({}, ((TRAIN[0], TRAIN[1][:5]), VALIDATION), DataError, "70 inputs but 5 targets"),
    ],
)
def test_data_and_settings_that_do_not_fit_are_one_message(tmp_path, changes, data, error, message):
    with pytest.raises(error, match=message):
        make_trainer(tmp_path / "run", **changes).execute(*data)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metrics": ["mse"]}, SpecError, "metric 'mse' does not fit loss 'cross_entropy'"),
        ({"loss": "cross_entrop"}, SpecError, "Did you mean 'cross_entropy'"),
        ({"optimizer": "adamx"}, SpecError, "Did you mean"),
        ({"model": {"name": "mpl", "num_classes": 3}}, ConfigError, "Did you mean 'mlp'"),
        ({"model": 3}, ConfigError, "it needs a name"),
        ({"config": {"weight_decay": 0.1}, "optimizer": "sgd"}, ConfigError, "no decoupled decay"),
        ({"config": {"epochs": 2}}, SpecError, "exactly one of num_steps and epochs"),
        ({"config": {"learning_rat": 2}}, SpecError, "Did you mean 'learning_rate'"),
    ],
)
def test_wrong_arguments_are_one_message(tmp_path, arguments, error, message):
    config = {"run_dir": str(tmp_path / "run"), "num_steps": 2, **arguments.pop("config", {})}
    with pytest.raises(error, match=message):
        SupervisedTrainer(config, **{"model": MODEL, **arguments})
