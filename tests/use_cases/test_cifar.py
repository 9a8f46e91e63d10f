"""Small colour pictures: training on one and two ranks, the reader of the user's files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "use_cases" / "cifar"


def write_batches(folder: Path, per_file: int = 64) -> None:
    """Write files of the binary version, two classes: dark and bright pictures."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in (*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"):
        labels = generator.integers(0, 2, per_file)
        pixels = generator.integers(0, 100, (per_file, 3072)) + 100 * labels[:, None]
        np.concatenate([labels[:, None], pixels], axis=1).astype(np.uint8).tofile(folder / name)


def test_a_residual_network_learns_textures(exec_pipeline, last_row, tmp_path):
    exec_pipeline("cifar", f"run_dir={tmp_path}/run")
    assert last_row(tmp_path / "run", "test_accuracy")["test_accuracy"] >= 0.8


def test_binary_files_of_the_user(exec_pipeline, last_row, tmp_path):
    write_batches(tmp_path / "cifar-10-batches-bin")
    small = ["model.channels=[8,8]", "epochs=4", "batch=16", "data.flip=true"]
    exec_pipeline("cifar", "data.source=cifar", f"data.root={tmp_path}", *small, f"run_dir={tmp_path}/run")
    assert last_row(tmp_path / "run", "test_accuracy")["test_accuracy"] >= 0.95


def test_wrong_files_are_told_apart(exec_pipeline, tmp_path):
    write_batches(tmp_path / "cut")
    with (tmp_path / "cut" / "data_batch_3.bin").open("ab") as file:
        file.write(b"\0")
    (tmp_path / "pickled" / "cifar-10-batches-py").mkdir(parents=True)
    for folder, said in (("cut", "data_batch_3.bin' has 196673 bytes"), ("pickled", "a pickle"), ("none", "No such")):
        wrong = ["data.source=cifar", f"data.root={tmp_path}/{folder}", f"run_dir={tmp_path}/run"]
        done = exec_pipeline("cifar", *wrong, check=False)
        assert done.returncode == 1
        assert said in done.stderr


@pytest.mark.torch_dist
def test_scaling_writes_what_it_measured(tmp_path):
    """One and two ranks train to the same result; how fast is not asserted, since cores may be shared."""
    small = [
        "epochs=1",
        "data.counts=[640,128]",
        "batch=32",
        "model.channels=[8,16]",
        "+training_pipeline.steps.train.config.log_every=5",
    ]
    subprocess.run(
        [sys.executable, "scaling.py", "--ranks", "1", "2", "--output", str(tmp_path), *small],
        cwd=FOLDER, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=280,
    )  # fmt: skip
    document = json.loads((tmp_path / "scaling.json").read_text())
    one, two = document["rows"]
    assert (one["ranks"], one["speed_up"], one["efficiency"]) == (1, 1.0, 1.0)
    assert two["efficiency"] == pytest.approx(two["samples_per_s"] / one["samples_per_s"] / 2)
    assert two["test_accuracy"] == pytest.approx(one["test_accuracy"], abs=0.02)
    losses = [
        [json.loads(line) for line in (tmp_path / f"ranks-{ranks}" / "metrics.jsonl").read_text().splitlines()][-1]
        for ranks in (1, 2)
    ]
    assert losses[1]["test_loss"] == pytest.approx(losses[0]["test_loss"], rel=1e-3)
    assert "| 2 |" in (tmp_path / "scaling.md").read_text()
