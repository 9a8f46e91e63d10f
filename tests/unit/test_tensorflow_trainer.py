"""TensorFlowTrainer on scikit-learn's digits: it learns, resumes, mirrors and refuses."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gnomon.data.batch_sampler import BatchRequest
from gnomon.errors import (
    CheckpointError,
    CheckpointWarning,
    ConfigError,
    DataError,
    InterruptedRunError,
    LaunchError,
    RunDirectoryError,
    SpecError,
    TrainingError,
)
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.examples import Examples
from gnomon.train.tensorflow import TensorFlowTrainer
from gnomon.train.tensorflow.cluster import Cluster, find_cluster

pytestmark = pytest.mark.tensorflow
MLP = {"name": "mlp", "hidden": [32], "num_classes": 10}
Data = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> None:
    """Split the CPU in two before TensorFlow starts, for the mirrored strategy; the other tests use the first."""
    pytest.importorskip("tensorflow")
    from gnomon.train.tensorflow.library import tensorflow

    tf = tensorflow()
    from tensorflow.python.eager import context

    context._reset_context()  # another test of this process may have started it
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="module")
def digits() -> tuple[Data, Data]:
    """Images (8, 8) and their numbers: 1437 to train and 360 to test."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    order = np.random.default_rng(0).permutation(len(loaded.target))
    images, labels = (loaded.images[order] / 16).astype(np.float32), loaded.target[order]
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


def settings(run_dir: Path, **changes) -> dict:
    base = {"run_dir": str(run_dir), "num_steps": 6, "batch": 16, "log_every": 1, "device": "cpu", "progress": False}
    return {**base, **changes}


def weights(model) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in model.variables]


def assert_equal(first, second, tolerance: float | None = None) -> None:
    for one, other in zip(weights(first), weights(second), strict=True):
        if tolerance is None:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def curve(run_dir: Path) -> list[tuple]:
    return [(row["step"], row.get("loss"), row.get("eval_loss")) for row in RunDirectory.open(run_dir).read_metrics()]


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_it_learns_the_digits(tmp_path, digits, name):
    train, test = digits
    model, epochs = {"name": name, "num_classes": 10}, 8
    config = settings(
        tmp_path / "run", num_steps=0, epochs=epochs, batch=32, learning_rate=3e-3, log_every=10, eval_every=44
    )
    config["trackers"] = ["tensorboard"] if name == "mlp" else []
    given = TensorFlowTrainer(config, model, metrics=["accuracy"]).execute(train, test, test)
    rows = RunDirectory.open(tmp_path / "run").read_metrics()
    training = next(row for row in rows if "loss" in row)
    assert {"step", "loss", "lr", "step_time_s", "samples_per_s"} <= set(training)
    assert training["samples"] == 320
    evaluation = next(row for row in rows if "eval_loss" in row)
    assert {"step", "eval_loss", "eval_accuracy"} <= set(evaluation)
    assert rows[-1]["step"] == epochs * (1437 // 32)
    assert rows[-1]["test_accuracy"] >= 0.95
    predicted = given[3].predict(test[0], verbose=0).argmax(-1)
    assert np.mean(predicted == test[1]) == pytest.approx(rows[-1]["test_accuracy"])
    assert given[:3] == (train, test, test)
    assert list((tmp_path / "run").glob("tensorboard/**/events*")) or name != "mlp"


def test_an_lstm_learns_to_sum_and_reports_errors_of_regression(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(256, 5, 2))
    targets = inputs.sum((1, 2))
    config = settings(tmp_path / "run", num_steps=120, batch=64, learning_rate=2e-2, log_every=40, grad_clip=1.0)
    model = {"name": "lstm", "hidden": 16, "num_outputs": 1}
    trainer = TensorFlowTrainer(config, model, loss="mse", metrics=["mse", "mae", "rmse"], optimizer="adam")
    *_, trained = trainer.execute((inputs, targets), None, (inputs, targets))
    rows = RunDirectory.open(tmp_path / "run").read_metrics()
    errors = trained.predict(inputs, verbose=0)[:, 0] - targets
    assert rows[-1]["test_mse"] == pytest.approx(np.mean(errors**2), rel=1e-4)
    assert rows[-1]["test_mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-4)
    assert rows[-1]["test_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-4)
    assert rows[-1]["test_loss"] == pytest.approx(rows[-1]["test_mse"])
    assert rows[-1]["test_mse"] < 0.2 * targets.var()
    assert all(row["grad_norm"] > 0 for row in rows[:-1])


class NoisyImages:
    """A dataset without arrays, whose items draw random numbers."""

    def __init__(self, data: Data) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[1])

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.data[0][index] + 0.1 * np.random.normal(size=(8, 8)), int(self.data[1][index])


def with_dropout():
    import keras

    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(10)])


def test_a_resumed_run_equals_one_that_was_not_interrupted_bit_for_bit(tmp_path, digits):
    train, test = digits
    noisy = NoisyImages((train[0][:96], train[1][:96]))  # 6 steps per epoch
    config = {"num_steps": 14, "checkpoint_every": 4, "eval_every": 7, "warmup_steps": 3, "lr_schedule": "cosine"}

    def run(name: str, **changes):
        given = settings(tmp_path / name, **{**config, **changes})
        return TensorFlowTrainer(given, with_dropout).execute(noisy, test)[3]

    whole = run("whole")
    trainer = TensorFlowTrainer(settings(tmp_path / "broken", **config), with_dropout)
    with pytest.raises(InterruptedRunError, match="SIGTERM arrived; training stopped after step 5 of 14") as caught:
        trainer.execute(Terminating(noisy, 5 * 16), test)
    assert caught.value.exit_code == 143
    resumed = run("broken", resume=True)
    assert_equal(whole, resumed)
    assert curve(tmp_path / "whole") == curve(tmp_path / "broken")
    kept = sorted(path.name for path in (tmp_path / "broken" / "checkpoints").iterdir())
    assert kept == ["step-000012", "step-000014"]


def test_a_damaged_checkpoint_is_passed_over_and_that_of_another_run_refused(tmp_path, digits):
    config = settings(tmp_path / "run", num_steps=4, checkpoint_every=2)
    whole = TensorFlowTrainer(config, MLP).execute(digits[0])[3]
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step-000004" / "variables.data-00000-of-00001").write_bytes(b"damaged")
    with pytest.warns(CheckpointWarning, match="renamed to 'damaged-step-000004'; the run continues from"):
        again = TensorFlowTrainer({**config, "resume": True}, MLP).execute(digits[0])[3]
    assert_equal(whole, again)
    with pytest.raises(CheckpointError, match="belongs to another run: seed was 0 and is 1"):
        TensorFlowTrainer({**config, "resume": True, "seed": 1}, MLP).execute(digits[0])
    with pytest.raises(CheckpointError, match="does not fit the model and its optimizer"):
        TensorFlowTrainer({**config, "resume": True}, {**MLP, "hidden": [8]}).execute(digits[0])
    with pytest.raises(RunDirectoryError, match="holds a run already"):
        TensorFlowTrainer(config, MLP).execute(digits[0])


@pytest.mark.parametrize("changes", [{}, {"grad_clip": 0.05, "accumulation": 2}], ids=["plain", "clipped"])
def test_two_mirrored_replicas_train_to_the_numbers_of_one(tmp_path, digits, changes):
    train, test = digits
    shared = {"num_steps": 12, "eval_every": 12, "weight_decay": 0.1, **changes}

    def run(name: str, **more):
        config = settings(tmp_path / name, **shared, **more)
        return TensorFlowTrainer(config, MLP, metrics=["accuracy"]).execute(train, (test[0][:50], test[1][:50]))[3]

    one = run("one")
    two = run("two", strategy={"name": "mirrored", "replicas": 2})
    assert_equal(one, two, 1e-4)
    rows = [RunDirectory.open(tmp_path / name).read_metrics() for name in ("one", "two")]
    for first, second in zip(*rows, strict=True):
        for key in ("loss", "grad_norm", "eval_loss", "eval_accuracy"):
            assert (first.get(key) or 0.0) == pytest.approx(second.get(key) or 0.0, rel=1e-4)


def test_a_mirrored_run_is_continued_on_one_device(tmp_path, digits):
    config = settings(tmp_path / "run", checkpoint_every=3, strategy={"name": "mirrored", "replicas": 2})
    whole = TensorFlowTrainer(config, MLP).execute(digits[0])[3]
    (tmp_path / "run" / "checkpoints" / "step-000006").rename(tmp_path / "late")
    config = {**config, "strategy": "single", "resume": True}
    assert_equal(whole, TensorFlowTrainer(config, MLP).execute(digits[0])[3], 1e-4)


def test_the_same_optimizer_steps_as_pytorch(tmp_path, digits):
    """From the same weights, with the same batches, both frameworks train to the same numbers."""
    torch = pytest.importorskip("torch")
    import keras

    from gnomon.train.supervised import SupervisedTrainer

    start = np.random.default_rng(0).normal(size=(64, 10), scale=0.05).astype(np.float32)
    shared = {"num_steps": 12, "batch": 16, "learning_rate": 1e-2, "warmup_steps": 4, "grad_clip": 0.5}

    def keras_model():
        constant = keras.initializers.Constant(start)
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10, kernel_initializer=constant)])

    def torch_model():
        linear = torch.nn.Linear(64, 10)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(start.T))
            linear.bias.zero_()
        return torch.nn.Sequential(torch.nn.Flatten(), linear)

    for optimizer, decay in (("adamw", 0.1), ("adam", 0.0), ("sgd", 0.0)):
        theirs, ours = tmp_path / f"torch-{optimizer}", tmp_path / f"tensorflow-{optimizer}"
        config = settings(theirs, **shared, weight_decay=decay)
        module = SupervisedTrainer(config, torch_model, metrics=["accuracy"], optimizer=optimizer).execute(*digits)[3]
        config = settings(ours, **shared, weight_decay=decay)
        model = TensorFlowTrainer(config, keras_model, metrics=["accuracy"], optimizer=optimizer).execute(*digits)[3]
        np.testing.assert_allclose(weights(model)[0], module[1].weight.detach().numpy().T, rtol=1e-3, atol=2e-4)
        for first, second in zip(*(RunDirectory.open(run).read_metrics() for run in (theirs, ours)), strict=True):
            assert set(first) == set(second)
            for key in ("step", "loss", "lr", "grad_norm", "samples"):
                assert first[key] == pytest.approx(second[key], rel=1e-4), (optimizer, key)


PIPELINE = """
run_dir: {run_dir}
training_pipeline:
  _target_: gnomon.pipeline.Pipeline
  steps:
    - _target_: digits_for_test.Digits
    - _target_: {trainer}
      config:
        run_dir: ${{run_dir}}
        epochs: 6
        batch: 32
        learning_rate: 5.0e-3
        eval_every: 44
        device: cpu
        progress: false
      model: {{name: mlp, hidden: [64], num_classes: 10}}
      loss: cross_entropy
      metrics: [accuracy]
      optimizer: adam
"""
GETTER = """
import numpy as np
from sklearn.datasets import load_digits
from gnomon.component import Component

class Digits(Component):
    def execute(self):
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        images, labels = (digits.images[order] / 16).astype(np.float32), digits.target[order]
        return (images[:1437], labels[:1437]), (images[1437:], labels[1437:]), (images[1437:], labels[1437:])
"""


def test_one_pipeline_runs_with_either_trainer_by_changing_its_target(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from gnomon.pipeline.job import compose_jobs, run_job

    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits_for_test.py").write_text(GETTER)
    keys = []
    for trainer in ("gnomon.train.supervised.SupervisedTrainer", "gnomon.train.tensorflow.TensorFlowTrainer"):
        name = trainer.rpartition(".")[2]
        (tmp_path / f"{name}.yaml").write_text(PIPELINE.format(run_dir=name, trainer=trainer))
        run_job(*compose_jobs(tmp_path, name, []))
        rows = RunDirectory.open(tmp_path / name).read_metrics()
        assert rows[-1]["test_accuracy"] >= 0.95
        keys.append([sorted(row) for row in rows])
    assert keys[0] == keys[1]


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32(tmp_path, digits):
    import keras

    *_, model = TensorFlowTrainer(settings(tmp_path / "run", precision="bf16"), MLP).execute(digits[0])
    dense = model.layers[1]
    assert (dense.compute_dtype, dense.kernel.dtype) == ("bfloat16", "float32")
    assert keras.config.dtype_policy().name == "float32"


def test_training_stops_early_and_keeps_the_best(tmp_path, digits):
    train, test = digits
    changes = {"num_steps": 40, "eval_every": 2, "checkpoint_every": 2, "best_metric": "eval_loss"}
    config = settings(tmp_path / "run", **changes, early_stopping=2, keep_checkpoints=1, learning_rate=100.0)
    TensorFlowTrainer(config, MLP, optimizer="adam").execute(train, test)
    evaluated = [
        (row["eval_loss"], row["step"])
        for row in RunDirectory.open(tmp_path / "run").read_metrics()
        if "eval_loss" in row
    ]
    best, last = min(evaluated)[1], evaluated[-1][1]
    assert last == best + 4 < 40
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == [f"step-{best:06d}", f"step-{last:06d}"]


def test_a_loss_that_is_not_finite_names_the_step_and_the_last_good_checkpoint(tmp_path):
    inputs, targets = np.ones((64, 4), np.float32), np.ones(64, np.float32)
    config = settings(tmp_path / "run", num_steps=50, checkpoint_every=2, learning_rate=1e6)
    trainer = TensorFlowTrainer(config, {"name": "mlp", "num_outputs": 1}, loss="mse", optimizer="sgd")
    with pytest.raises(TrainingError, match=r"is (inf|nan) at step \d+ with learning_rate=1e\+06.*") as caught:
        trainer.execute((inputs, targets))
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert str(kept[-1]) in str(caught.value)


def test_weights_that_are_not_finite_are_never_saved_though_the_loss_is(tmp_path):
    # a fused rectifier makes 0 of NaN, so that all losses after one bad sample are finite
    inputs, targets = np.random.default_rng(0).normal(size=(64, 4)), np.ones(64)
    inputs[40] = np.nan
    for every in (1, 0):
        folder = tmp_path / str(every)
        config = settings(folder, num_steps=8, checkpoint_every=every, keep_checkpoints=1, log_every=every)
        trainer = TensorFlowTrainer(config, {"name": "mlp", "num_outputs": 1}, loss="mse", optimizer="sgd")
        with pytest.raises(TrainingError, match=r"The weight .*kernel is not finite at step \d"):
            trainer.execute((inputs, targets))
        if every:
            (kept,) = (folder / "checkpoints").iterdir()
            steps = [row["step"] for row in RunDirectory.open(folder).read_metrics()]
            assert kept.name == f"step-{steps[-1] - 1:06d}"


class Terminating:
    """A dataset that sends SIGTERM to this process when its `count`-th item is read."""

    def __init__(self, data, count: int) -> None:
        self.data = data
        self.left = count + 1  # the first is read to see its shape

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.data[index]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_steps": 0}, SpecError, "exactly one of num_steps and epochs is needed, found neither"),
        ({"epochs": 2}, SpecError, "found num_steps=6 and epochs=2"),
        ({"learning_rat": 1.0}, SpecError, "unknown key 'learning_rat'. Did you mean 'learning_rate'"),
        ({"weight_decay": 0.1, "optimizer": "sgd"}, ConfigError, "optimizer=sgd has no decoupled decay"),
        ({"compile": True}, ConfigError, "compile=True, which TensorFlowTrainer does not offer"),
        ({"ema_decay": 0.9}, ConfigError, "ema_decay=0.9, which TensorFlowTrainer does not offer"),
        ({"precision": "fp16"}, ConfigError, "set precision=bf16 or fp32"),
        ({"loss": "cros_entropy"}, SpecError, "Did you mean 'cross_entropy'?"),
        ({"loss": "mse", "metrics": ["accuracy"]}, SpecError, "metric 'accuracy' does not fit loss 'mse'"),
        ({"model": {"name": "mpl"}}, ConfigError, "model.name='mpl' is not known. Did you mean 'mlp'?"),
        ({"model": {**MLP, "hiden": 3}}, SpecError, "unknown key 'hiden'. Did you mean 'hidden'?"),
    ],
)
def test_wrong_settings_are_refused_before_tensorflow_is_needed(tmp_path, changes, error, message):
    arguments = {name: changes.pop(name) for name in ("loss", "metrics", "optimizer", "model") if name in changes}
    with pytest.raises(error, match=message.replace("?", r"\?")):
        TensorFlowTrainer(settings(tmp_path / "run", **changes), **{"model": MLP, **arguments})


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"strategy": "mirorred"}, ConfigError, "not one of TensorFlowTrainer. Did you mean 'mirrored'"),
        ({"strategy": "ddp"}, ConfigError, "What it does, 'multi_worker' does here"),
        ({"strategy": "mirrored"}, LaunchError, "there is no GPU to mirror the model on"),
        ({"strategy": {"name": "mirrored", "replica": 2}}, ConfigError, "has no option 'replica'. Did you mean"),
        ({"strategy": {"name": "mirrored", "replicas": "2"}}, ConfigError, "replicas is '2'; set it to a whole number"),
        ({"strategy": {"name": "mirrored", "replicas": 4}}, LaunchError, "before TensorFlow computes anything"),
        ({"strategy": {"name": "mirrored", "replicas": 2}, "batch": 15}, ConfigError, "multiple of 2"),
        ({"strategy": "multi_worker"}, LaunchError, "this process is alone"),
        ({"device": "cuda"}, LaunchError, "finds no GPU"),
        ({"batch": 64}, DataError, "batch=64, but the training data has only 40"),
        ({"eval_every": 2}, ConfigError, "eval_every=2, but there is no validation data"),
        ({"loss": "mse"}, DataError, r"A target has the shape \(\), but the model returns \(10,\)"),
        ({"model": {"name": "lstm", "num_classes": 10}}, ConfigError, "lstm needs inputs .time, features."),
        ({"model": {"name": "cnn", "num_classes": 10}}, ConfigError, "cnn needs images"),
        ({"model": {**MLP, "num_classes": 2}}, DataError, "A target is class 3, but the model has 2 classes"),
        ({"model": dict}, ConfigError, "must be a keras.Model, but"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path, changes, error, message):
    arguments = {name: changes.pop(name) for name in ("loss", "model") if name in changes}
    trainer = TensorFlowTrainer(settings(tmp_path / "run", **changes), **{"model": MLP, **arguments})
    with pytest.raises(error, match=message):
        trainer.execute((np.ones((40, 4), np.float32), np.full(40, 3)))


def test_a_model_that_has_weights_already_is_refused_by_a_strategy_that_must_make_them(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    config = settings(tmp_path / "run", strategy={"name": "mirrored", "replicas": 2})
    data = np.ones((40, 4), np.float32), np.full(40, 3)
    with pytest.raises(ConfigError, match="Add _partial_: true to the model's configuration"):
        TensorFlowTrainer(config, model).execute(data)
    TensorFlowTrainer({**config, "strategy": "single"}, model).execute(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no training data"),
        ((np.ones((4, 2)), np.ones(3)), "4 inputs, but 3 targets"),
        (iter([1]), "no random access"),
        ((np.ones((0, 2)), np.ones(0)), "are empty"),
        ([1, 2, 3] * 20, "Item 0 of the training data is a int, not a pair"),
        ([(np.ones(2), 1), (np.ones(3), 1)] * 20, "do not make a batch"),
        ([("text", 1)] * 40, "becomes an array of <U4, not of numbers"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused(tmp_path, data, message):
    with pytest.raises(DataError, match=message):
        TensorFlowTrainer(settings(tmp_path / "run"), MLP).execute(data)


def test_items_draw_the_same_numbers_whoever_reads_them(digits):
    first = Examples(NoisyImages(digits[0]), "training", seed=3)
    batch, _ = first.take(BatchRequest(epoch=1, indices=[5, 7], num_real=2))
    alone, _ = first.take(BatchRequest(epoch=1, indices=[7], num_real=1))
    other, _ = first.take(BatchRequest(epoch=2, indices=[7], num_real=1))
    np.testing.assert_array_equal(batch[1], alone[0])
    assert not np.array_equal(alone, other)


TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": "29500"}


def test_workers_find_each_other():
    assert find_cluster({}) == Cluster()
    one_node = {**TORCHRUN, "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1"}
    assert find_cluster(one_node).addresses == tuple(f"10.0.0.1:{port}" for port in (29501, 29502, 29503, 29504))
    nodes = {**TORCHRUN, "SLURM_JOB_NODELIST": "node[07-08]"}
    assert find_cluster(nodes) == Cluster(
        rank=3, local_rank=1, world_size=4, addresses=("node07:29501", "node07:29502", "node08:29501", "node08:29502")
    )
    assert find_cluster(nodes, port=5000).addresses[2] == "node08:5000"
    with pytest.raises(LaunchError, match="which end at 65535"):
        find_cluster(nodes, port=65535)
    # a port that the system may give to a connection meanwhile is not listened on
    given_away = {**one_node, "MASTER_PORT": "44199"}
    assert find_cluster(given_away).addresses[0] == "10.0.0.1:14199"
    listed = {"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 1}}
    found = find_cluster({"TF_CONFIG": json.dumps(listed)})
    assert (found.rank, found.world_size, found.addresses) == (2, 3, ("a:1", "b:1", "c:1"))


def test_tasks_of_slurm_find_each_other_even_if_hosts_have_different_numbers():
    step = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_JOB_ID": "7"}
    task = {"SLURM_PROCID": "2", "SLURM_LOCALID": "0", "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "node[07,09]"}
    found = find_cluster({**step, **task})
    port = int(found.addresses[0].partition(":")[2])
    assert 20_000 < port <= 30_000
    assert found.addresses == (f"node07:{port}", f"node07:{port + 1}", f"node09:{port}")
    assert (found.rank, found.local_rank) == (2, 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN, "neither TF_CONFIG nor SLURM_JOB_NODELIST is set"),
        ({**TORCHRUN, "SLURM_JOB_NODELIST": "node[1-3]"}, r"need 2 hosts, but SLURM names 3 \(node\[1-3\]\)"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "3"}, "not the same number on every host"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "4", "MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        ({"TF_CONFIG": "{"}, "TF_CONFIG in the environment is malformed"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}'}, "task worker 1"),
        ({"TF_CONFIG": '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}'}, "with 1 ps"),
    ],
)
def test_workers_that_cannot_find_each_other_are_told_why(variables, message):
    with pytest.raises(LaunchError, match=message):
        find_cluster(variables)


def test_neither_framework_is_imported_before_it_is_needed():
    code = (
        "import sys; from gnomon.train.tensorflow import TensorFlowTrainer; "
        "TensorFlowTrainer({'run_dir': 'x', 'num_steps': 1}, {'name': 'mlp', 'num_classes': 2}); "
        "print(sorted({'torch', 'tensorflow', 'keras'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
