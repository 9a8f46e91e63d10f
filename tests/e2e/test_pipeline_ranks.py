"""One pipeline on one process, on two that gnomon starts, and on two that torchrun starts: the same numbers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """
run_dir: run
training_pipeline:
  _target_: gnomon.pipeline.Pipeline
  steps:
    data: {_target_: gnomon.data.getters.DigitsGetter}
    train:
      _target_: gnomon.train.supervised.SupervisedTrainer
      config:
        run_dir: ${run_dir}
        num_steps: 30
        batch: 32
        learning_rate: 2.0e-3
        eval_every: 15
        checkpoint_every: 10
        device: cpu
      model: {name: mlp, hidden: [32], num_classes: 10}
      metrics: [accuracy]
"""
PYTHON = Path(sys.executable)
GNOMON = str(PYTHON.with_name("gnomon"))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


def figures(folder: Path) -> list[tuple[float, ...]]:
    rows = map(json.loads, (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    names = ("loss", "eval_loss", "eval_accuracy", "test_loss")
    return [tuple(row[name] for name in names if name in row) for row in rows]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[float, ...]]:
    folder = tmp_path_factory.mktemp("alone")
    done = run(folder, GNOMON, "exec-pipeline", "--config", "config.yaml")
    assert done.returncode == 0, done.stderr
    return figures(folder)


@pytest.mark.functional
@pytest.mark.torch_dist
def test_two_ranks_that_gnomon_starts_give_the_numbers_of_one(tmp_path, alone):
    done = run(tmp_path, GNOMON, "exec-pipeline", "--config", "config.yaml", "--ranks", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run_dir"] == "run"
    assert figures(tmp_path) == [pytest.approx(row, rel=1e-5) for row in alone]
    config = (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    assert "training_pipeline" in config
    again = run(tmp_path, GNOMON, "exec-pipeline", "--config", "config.yaml", "--ranks", "2")
    assert again.returncode == 1
    assert "holds a run already" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.functional
@pytest.mark.torch_dist
def test_two_ranks_that_torchrun_starts_give_the_numbers_of_one(tmp_path, alone):
    torchrun = [str(PYTHON.with_name("torchrun")), "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"]
    done = run(tmp_path, *torchrun, "--no-python", GNOMON, "exec-pipeline", "--config", "config.yaml")
    assert done.returncode == 0, done.stderr
    assert figures(tmp_path) == [pytest.approx(row, rel=1e-5) for row in alone]


def test_an_unknown_launcher_is_named(tmp_path):
    done = run(tmp_path, GNOMON, "exec-pipeline", "--config", "config.yaml", "--ranks", "2", "--launcher", "rai")
    assert done.returncode == 1
    assert "launcher='rai' is not installed. Did you mean 'ray'?" in done.stderr


@pytest.mark.functional
@pytest.mark.torch_dist
def test_two_ranks_print_their_result_as_json_and_name_the_step_that_fails(tmp_path):
    (tmp_path / "steps.py").write_text(
        "from pathlib import Path\nfrom gnomon.component import Component\n\n"
        "class Give(Component):\n    def execute(self):\n        return [1, {'a': Path('b'), 'c': None}], 2.5\n\n"
        "class Fail(Component):\n    def execute(self, *inputs):\n        raise ValueError('bad')\n"
    )
    (tmp_path / "give.yaml").write_text(
        "pipeline: {_target_: gnomon.pipeline.Pipeline, steps: [{_target_: steps.Give}, {_target_: steps.Fail}]}\n"
    )
    command = (GNOMON, "exec-pipeline", "--config", "give.yaml", "--ranks", "2", "--json")
    done = run(tmp_path, *command, "--steps", "Give")
    assert json.loads(done.stdout)["result"] == [[1, {"a": "b", "c": None}], 2.5], done.stderr
    failed = run(tmp_path, *command)
    assert failed.returncode == 1
    assert "Step 'Fail' (steps.Fail) failed: ValueError: bad, at steps.py:10" in failed.stderr
    log = re.search(r"(/\S+?\.log)", failed.stderr)
    assert log is not None, failed.stderr
    assert "raise ValueError('bad')" in Path(log[1]).read_text()
    shutil.rmtree(Path(log[1]).parents[1])


@pytest.mark.functional
def test_a_rank_that_dies_leaves_the_log_that_the_message_names(tmp_path):
    (tmp_path / "dying.py").write_text(
        "import os\nfrom gnomon.component import Component\n\n"
        "class Die(Component):\n    def execute(self):\n        os.write(2, b'last words\\n')\n        os.abort()\n"
    )
    (tmp_path / "dying.yaml").write_text(
        "pipeline: {_target_: gnomon.pipeline.Pipeline, steps: [{_target_: dying.Die}]}\n"
    )
    done = run(tmp_path, GNOMON, "exec-pipeline", "--config", "dying.yaml", "--ranks", "1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    log = re.search(r"(/\S+?\.log)", done.stderr)
    assert log is not None, done.stderr
    assert "last words" in Path(log[1]).read_text()
    shutil.rmtree(Path(log[1]).parents[1])
