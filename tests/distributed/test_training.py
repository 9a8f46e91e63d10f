"""Real ranks: killed, stopped and out of disk, and what is left of the run afterwards."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gnomon.errors import CheckpointError, InterruptedRunError, RankFailedError, TrainingError
from gnomon.launch.local import run_ranks
from gnomon.train.checkpoint_files import list_checkpoints, read_state
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt import GPT
from gnomon.train.tensor_store import load_tensors
from training_fixtures import TINY_MODEL, rank_job, read_curve, tiny_config, train

pytestmark = pytest.mark.torch_dist

PATIENCE_S = 60.0
LONG_RUN: dict[str, Any] = {"num_steps": 160, "checkpoint_every": 20, "eval_every": 50, "eval_batches": 2}


class RunInThread:
    """Real ranks started from a thread, so that the test can interfere; `error` is how they ended."""

    def __init__(self, config: GPTTrainingConfig) -> None:
        self.job = rank_job(config)
        self.run_dir = Path(config.run_dir)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            run_ranks(self.job)
        except BaseException as error:
            self.error = error

    def send_when(self, condition: Callable[[], bool], signal_number: signal.Signals, rank: int) -> None:
        """Signal one rank as soon as the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert self._thread.is_alive(), f"the run ended before it could be disturbed: {self.error!r}"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(int((self.job.log_dir / f"rank-{rank}.pid").read_text(encoding="utf-8")), signal_number)

    def end(self) -> BaseException | None:
        """Wait for all ranks and return the error that they ended with."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "a rank hangs"
        return self.error

    def rows(self) -> int:
        """Return the rows written so far."""
        path = self.run_dir / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Uninterrupted runs with the same global batch, by number of ranks."""
    folder = tmp_path_factory.mktemp("whole")
    runs = {ranks: folder / f"ranks-{ranks}" for ranks in (1, 2)}
    for ranks, run_dir in runs.items():
        train(tiny_config(run_dir, layout={"dp": ranks}, **LONG_RUN))
    return runs


def final_parameters(run_dir: Path) -> dict[str, torch.Tensor]:
    model = GPT(tiny_config(run_dir).model)
    state = model.state_dict()
    load_tensors({"model": state}, list_checkpoints(run_dir / "checkpoints")[0], distributed=False)
    return state


def test_two_ranks_compute_what_one_rank_computes(whole_runs):
    one, two = (final_parameters(whole_runs[ranks]) for ranks in (1, 2))
    for name, value in one.items():
        assert (value - two[name]).norm() <= 1e-6 * value.norm(), name
        assert torch.equal(value, two[name]), name  # the sum of two halves is exact
    curves = [[row for row in read_curve(whole_runs[ranks]) if row[3] is None] for ranks in (1, 2)]
    assert curves[0] == curves[1]
    assert len(curves[0]) == 160
    assert curves[0][-1][1] < curves[0][0][1] - 1.0


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_at_a_random_step_resumes_bit_for_bit(tmp_path, whole_runs, ranks):
    config = tiny_config(tmp_path / "run", layout={"dp": ranks}, **LONG_RUN)
    run = RunInThread(config)
    at_row = random.randint(30, 100)
    run.send_when(lambda: run.rows() >= at_row, signal.SIGKILL, rank=ranks - 1)
    error = run.end()
    assert isinstance(error, RankFailedError)
    assert at_row <= run.rows() < len(read_curve(whole_runs[ranks]))
    train(config.model_copy(update={"resume": True}))
    assert read_curve(run.run_dir) == read_curve(whole_runs[ranks])
    assert [path.name for path in list_checkpoints(run.run_dir / "checkpoints")] == ["step-000160", "step-000140"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_killed_during_a_checkpoint_resumes_from_the_one_before(tmp_path, ranks):
    model = {**TINY_MODEL, "hidden_size": 256, "num_layers": 4}  # 40 MB of state: long enough to be hit
    workload = {"seq_len": 16, "global_batch": 2, "micro_batch": 1}
    changes = {"model": model, "workload": workload, "layout": {"dp": ranks}, "num_steps": 5, "checkpoint_every": 1}
    config = tiny_config(tmp_path / "run", **changes)
    run = RunInThread(config)
    checkpoints = run.run_dir / "checkpoints"

    def is_saving_again() -> bool:
        return bool(list_checkpoints(checkpoints)) and any(checkpoints.glob(".step-*.tmp/__*.distcp"))

    run.send_when(is_saving_again, signal.SIGKILL, rank=ranks - 1)
    error = run.end()
    assert isinstance(error, RankFailedError)
    assert list(checkpoints.glob(".step-*.tmp"))
    newest = list_checkpoints(checkpoints)[0]
    assert read_state(newest)["step"] >= 1
    before = read_curve(run.run_dir)
    train(config.model_copy(update={"resume": True}))
    after = read_curve(run.run_dir)
    assert [step for step, *_ in after] == [1, 2, 3, 4, 5]
    assert after[: len(before)] == before
    assert not list(checkpoints.glob(".step-*.tmp"))


def test_one_rank_told_to_stop_stops_all_and_any_number_of_ranks_may_continue(tmp_path, whole_runs):
    config = tiny_config(tmp_path / "run", layout={"dp": 2}, **{**LONG_RUN, "checkpoint_every": 0, "eval_every": 0})
    run = RunInThread(config)
    run.send_when(lambda: run.rows() >= 3, signal.SIGTERM, rank=1)
    error = run.end()
    assert isinstance(error, InterruptedRunError)
    assert error.exit_code == 143
    stopped_at = run.rows()
    assert [path.name for path in list_checkpoints(run.run_dir / "checkpoints")] == [f"step-{stopped_at:06d}"]
    train(config.model_copy(update={"resume": True, "layout": config.layout.model_copy(update={"dp": 1}),
                                    "accumulation": 2}))  # fmt: skip
    assert read_curve(run.run_dir) == [row for row in read_curve(whole_runs[1]) if row[3] is None]


def test_the_worker_alone_exits_as_its_signal_demands(tmp_path):
    config = tiny_config(tmp_path / "run", num_steps=100_000)
    path = config.save(tmp_path / "settings.json")
    command = [sys.executable, "-m", "gnomon.train.worker", str(path)]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    worker.send_signal(signal.SIGINT)
    _, stderr = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == 130
    assert stderr.startswith("SIGINT arrived; training stopped after step ")
    assert "Traceback" not in stderr
    assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) == 1


def test_a_loss_that_is_not_finite_ends_all_ranks_with_one_message(tmp_path):
    with pytest.raises(TrainingError, match=r"is (nan|inf) at step \d"):
        train(tiny_config(tmp_path / "run", layout={"dp": 2}, num_steps=50, learning_rate=1e30))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs of 2 MiB needs the rights of an administrator")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_during_a_checkpoint_ends_all_ranks_and_loses_nothing(small_disk):
    model = {**TINY_MODEL, "hidden_size": 64}  # a checkpoint takes 1.5 MB, so the second one does not fit
    changes = {"model": model, "layout": {"dp": 2}, "num_steps": 6, "checkpoint_every": 2, "keep_checkpoints": 1}
    config = tiny_config(small_disk / "run", **changes)
    with pytest.raises(CheckpointError) as caught:
        train(config)
    message = str(caught.value)
    assert "The checkpoint of step 4 could not be written" in message
    assert "the disk is full" in message
    assert "continue from it with resume=true" in message
    checkpoints = small_disk / "run" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-000002"]
    assert read_state(checkpoints / "step-000002")["step"] == 2
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    train(config.model_copy(update={"resume": True}))
    assert [step for step, *_ in read_curve(small_disk / "run")] == [1, 2, 3, 4, 5, 6]
