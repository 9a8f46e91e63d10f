"""TensorFlowTrainer on two real workers: the numbers of one process, through a stop and a kill."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gnomon.errors import InterruptedRunError, RankFailedError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.runtime.run_directory import RunDirectory

pytestmark = [pytest.mark.tensorflow, pytest.mark.torch_dist, pytest.mark.usefixtures("uncovered_children")]

WORKER = """
import json, os, signal, sys, time
import numpy as np
from gnomon.launch.rank_errors import report_rank_error

config = json.loads(sys.argv[1])
rank = int(os.environ.get("RANK", "0"))
generator = np.random.default_rng(0)
inputs = generator.normal(size=(80, 6)).astype(np.float32)
targets = inputs @ generator.normal(size=(6, 2)).astype(np.float32)

class Data:
    draws_random_numbers = False
    reads = 0
    def __len__(self):
        return len(inputs)
    def __getitem__(self, index):
        Data.reads += 1
        if rank == 1 and Data.reads == config.get("die_at", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        if "pause_s" in config:
            time.sleep(config["pause_s"])
        return inputs[index], targets[index]

with report_rank_error():
    from gnomon.train.tensorflow import TensorFlowTrainer

    settings = {"num_steps": 12, "batch": 16, "device": "cpu", "progress": False, "log_every": 1, "grad_clip": 0.5,
                "eval_every": 6, "checkpoint_every": 4, "learning_rate": 1e-2, **config["settings"]}
    model = {"name": "mlp", "hidden": [8], "num_outputs": 2}
    trainer = TensorFlowTrainer(settings, model, loss="mse", metrics=["mae"])
    *_, trained = trainer.execute(Data(), (inputs[:25], targets[:25]))
    weights = np.concatenate([np.asarray(each).ravel() for each in trained.trainable_variables])
    np.save(f"{settings['run_dir']}-weights-{rank}.npy", weights)
"""


@pytest.fixture(autouse=True)
def _worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow")
    (tmp_path / "tensorflow_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def train(run_dir: Path, ranks: int, settings: dict | None = None, **config) -> None:
    document = {**config, "settings": {**(settings or {}), "run_dir": str(run_dir)}}
    logs = run_dir.with_name(f"{run_dir.name}-logs")
    job = {"arguments": (json.dumps(document),), "log_dir": logs, "ranks": ranks, "threads_per_rank": 1}
    run_ranks(RankJob(module="tensorflow_worker", **job))


def figures(run_dir: Path) -> list[tuple]:
    keys = ("step", "loss", "grad_norm", "eval_loss", "eval_mae")
    return [tuple(row.get(key) or 0.0 for key in keys) for row in RunDirectory.open(run_dir).read_metrics()]


def weights(run_dir: Path, rank: int = 0) -> np.ndarray:
    return np.load(f"{run_dir}-weights-{rank}.npy")


def test_two_workers_train_to_the_numbers_of_one_process_through_a_stop_and_a_kill(tmp_path):
    one, two, broken = (tmp_path / name for name in ("one", "two", "broken"))
    train(one, 1)
    train(two, 2)
    np.testing.assert_array_equal(weights(two, 0), weights(two, 1))
    np.testing.assert_allclose(weights(two), weights(one), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(figures(two), figures(one), rtol=1e-4)

    stopper = threading.Thread(target=_stop_at_step, args=(broken, 2))
    stopper.start()
    with pytest.raises(InterruptedRunError, match=r"SIGTERM arrived; training stopped after step \d+ of 12"):
        train(broken, 2, pause_s=0.1)
    stopper.join()
    started = time.monotonic()
    with pytest.raises(RankFailedError, match="Rank 1 of 2 died"):
        train(broken, 2, {"resume": True}, die_at=1 + 3 * 8)  # in the third step after the stop
    assert time.monotonic() - started < 60
    train(broken, 2, {"resume": True})
    np.testing.assert_array_equal(weights(broken), weights(two))
    assert figures(broken) == figures(two)

    # what two workers saved, one process continues
    (two / "checkpoints" / "step-000012").rename(tmp_path / "late")
    train(two, 1, {"resume": True})
    np.testing.assert_allclose(weights(two), weights(one), rtol=1e-4, atol=1e-6)


def _stop_at_step(run_dir: Path, step: int) -> None:
    """Send SIGTERM to this process, as a scheduler would, once the run has logged the step."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (run_dir / "metrics.jsonl").exists() and len(figures(run_dir)) >= step:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        time.sleep(0.02)
