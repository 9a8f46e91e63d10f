"""Digits: each pipeline of the use case, to its stated figure."""

import gzip
import importlib.util
import json
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest

TENSORFLOW = "training_pipeline.steps.train._target_=gnomon.train.tensorflow.TensorFlowTrainer"
HPO = ("--pipe-key", "hpo_pipeline", "epochs=3", "classifier.config.eval_every=20", "classifier.config.progress=false")

needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed"
)
needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna is not installed")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def test_torch_classifies_digits_and_predicts_from_its_checkpoint(exec_pipeline, last_row, tmp_path):
    exec_pipeline("mnist", f"run_dir={tmp_path}/train")
    accuracy = last_row(tmp_path / "train", "test_accuracy")["test_accuracy"]
    assert accuracy >= 0.97
    done = exec_pipeline(
        "mnist", "--pipe-key", "inference_pipeline", "--json", f"checkpoint={tmp_path}/train", f"run_dir={tmp_path}/out"
    )
    score = json.loads(done.stdout)["result"]
    frame = pl.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert frame["id"].to_list() == list(range(score["samples"]))
    assert frame["prediction"].is_between(0, 9).all()
    assert score["accuracy"] == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.torch_dist
def test_two_ranks_classify_digits(exec_pipeline, last_row, tmp_path):
    exec_pipeline("mnist", "--ranks", "2", f"run_dir={tmp_path}/train")
    assert last_row(tmp_path / "train", "test_accuracy")["test_accuracy"] >= 0.97


@needs_tensorflow
@pytest.mark.tensorflow
def test_the_same_file_trains_with_tensorflow(exec_pipeline, last_row, tmp_path):
    exec_pipeline("mnist", TENSORFLOW, f"run_dir={tmp_path}/train")
    assert last_row(tmp_path / "train", "test_accuracy")["test_accuracy"] >= 0.97


@needs_lightning
@pytest.mark.parametrize(
    ("trainer", "figure"), [("LightningTrainer", "test_accuracy"), ("LightningModuleTrainer", "test_eval_accuracy")]
)
def test_a_lightning_module_under_both_loops(exec_pipeline, last_row, tmp_path, trainer, figure):
    target = f"lightning_pipeline.steps.train._target_=gnomon.train.lightning.{trainer}"
    exec_pipeline("mnist", "--pipe-key", "lightning_pipeline", target, f"run_dir={tmp_path}/train")
    assert last_row(tmp_path / "train", figure)[figure] >= 0.96


def test_mnist_files_of_the_user(exec_pipeline, last_row, tmp_path):
    """Two classes in the real format: bright left or right half."""
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 256), ("t10k", 64)):
        labels = generator.integers(0, 2, count)
        images = generator.integers(0, 100, (count, 28, 28))
        images[labels == 0, :, :14] += 100
        images[labels == 1, :, 14:] += 100
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte.gz", labels)
    small = ["data.source=mnist", f"data.root={tmp_path}", "model.channels=[8]", "epochs=4"]
    exec_pipeline("mnist", *small, f"run_dir={tmp_path}/run")
    assert last_row(tmp_path / "run", "test_accuracy")["test_accuracy"] >= 0.97


def test_no_source_of_data_stands_in_for_another(exec_pipeline, tmp_path):
    for wrong, said in (
        (["data.source=mnist"], "data.root is not set"),
        (["data.root=somewhere"], "Set data.source=mnist"),
        (["data.source=mnits"], "Did you mean 'mnist'?"),
        (["data.source=mnist", f"data.root={tmp_path}"], "gnomon downloads nothing"),
    ):
        done = exec_pipeline("mnist", *wrong, f"run_dir={tmp_path}/run", check=False)
        assert done.returncode == 1
        assert said in done.stderr


def test_a_gan_covers_the_digits(exec_pipeline, last_row, tmp_path):
    exec_pipeline("mnist", "--pipe-key", "gan_pipeline", f"run_dir={tmp_path}/gan")
    row = last_row(tmp_path / "gan", "test_coverage")
    assert row["test_coverage"] >= 0.65  # 0.97 for real digits, 0.01 before the training
    assert row["test_mmd"] <= 0.01  # 0.4 before the training


@needs_optuna
def test_a_study_is_stopped_goes_on_and_reports_the_best(exec_pipeline, tmp_path):
    exec_pipeline("mnist", *HPO, f"run_dir={tmp_path}/study", "trials=3")
    again = exec_pipeline("mnist", *HPO, f"run_dir={tmp_path}/study", "trials=8", "resume=true", "--json")
    report = json.loads(again.stdout)["result"]
    rows = [json.loads(line) for line in (tmp_path / "study" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(8))
    assert report["completed"] + report["pruned"] == 8
    assert report["pruned"] >= 1
    best = report["best"]
    assert best["eval_accuracy"] == max(row["eval_accuracy"] for row in rows if row["state"] == "complete") >= 0.8
    assert json.loads((tmp_path / "study" / "best.json").read_text()) == report
    trained = json.loads((Path(best["run_dir"]) / "training.json").read_text())
    assert trained["learning_rate"] == best["settings"]["config.learning_rate"]


@needs_optuna
def test_a_misspelled_search_parameter_is_an_error(exec_pipeline, tmp_path):
    for wrong, said in (
        ("config.lerning_rate={low: 0.1,high: 0.2}", "Did you mean 'learning_rate'?"),
        ("modle.channels={choices: [[8]]}", "Did you mean 'model'?"),
        ("config.batch={low: 0,high: 8}", "batch"),
        ("config.batch={low: 8,hihg: 9}", "Did you mean 'high'?"),
    ):
        override = f"+hpo_pipeline.steps.study.space.{wrong}"
        done = exec_pipeline("mnist", *HPO, override, f"run_dir={tmp_path}/study", check=False)
        assert done.returncode == 1
        assert said in done.stderr
        assert not (tmp_path / "study").exists()
