"""Ranks as workers of Ray: the same variables, reports and errors as under torchrun."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from gnomon.errors import InterruptedRunError, LaunchError, RankFailedError, TrainingError
from gnomon.launch import ray as ray_launch
from gnomon.launch.local import RankJob
from gnomon.launch.ray import RankPlace, RayResources, rank_variables, run_ranks_on_ray

PROGRAM = """
import os, sys, time
from pathlib import Path
from gnomon.errors import TrainingError
from gnomon.runtime.environment import RankEnvironment
folder, task = Path(sys.argv[1]), sys.argv[2]
e = RankEnvironment.detect()
(folder / f"rank-{e.rank}.txt").write_text(f"{e.source} {e.rank} {e.local_rank} {e.world_size} {e.local_world_size}")
if task == "fail" and e.rank == 1:
    raise TrainingError("The loss is nan at step 3.")
while task == "wait":
    time.sleep(0.1)
"""


def test_variables_are_those_of_torchrun_and_the_ranks_of_a_node_share_its_gpus():
    places = [
        RankPlace(node="a", address="10.0.0.1", port=1111, gpus=("3",)),
        RankPlace(node="a", address="10.0.0.1", port=2222, gpus=("0",)),
        RankPlace(node="b", address="10.0.0.2", port=3333, gpus=("0",)),
    ]
    first, second, third = rank_variables(places)
    assert first == {
        "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1111", "CUDA_VISIBLE_DEVICES": "3,0",
    }  # fmt: skip
    assert (second["LOCAL_RANK"], second["CUDA_VISIBLE_DEVICES"]) == ("1", "3,0")
    assert (third["RANK"], third["LOCAL_RANK"], third["LOCAL_WORLD_SIZE"]) == ("2", "0", "1")
    assert rank_variables(places, port=29500)[2]["MASTER_PORT"] == "29500"


def test_without_ray_the_error_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LaunchError, match=r"pip install 'gnomon\[ray\]'"):
        run_ranks_on_ray(RankJob(module="m", arguments=(), log_dir=tmp_path))


@pytest.fixture(scope="module")
def cluster():
    """One Ray for all tests: starting it takes seconds."""
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'gnomon[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20, logging_level="WARNING")
    yield ray
    ray.shutdown()


def make_job(folder: Path, monkeypatch: pytest.MonkeyPatch, task: str) -> RankJob:
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "ray_program.py").write_text(PROGRAM)
    return RankJob(module="ray_program", arguments=(str(folder), task), log_dir=folder / "logs", ranks=2)


def test_ranks_run_to_their_end(cluster, tmp_path, monkeypatch):
    run_ranks_on_ray(make_job(tmp_path, monkeypatch, "end"))
    texts = [(tmp_path / f"rank-{rank}.txt").read_text() for rank in range(2)]
    assert texts == ["ray 0 0 2 2", "ray 1 1 2 2"]


def test_the_error_of_a_rank_is_raised_as_it_is(cluster, tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match=r"The loss is nan at step 3\."):
        run_ranks_on_ray(make_job(tmp_path, monkeypatch, "fail"))


@pytest.mark.parametrize("victim", ["rank", "worker"])
def test_a_killed_rank_or_worker_ends_the_job(cluster, tmp_path, monkeypatch, victim):
    job = make_job(tmp_path, monkeypatch, "wait")

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / "rank-1.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int((job.log_dir / "rank-1.pid").read_text())
        status = Path(f"/proc/{pid}/status").read_text()
        parent = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
        os.kill(pid if victim == "rank" else parent, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RankFailedError, match=r"Rank 1 of 2 died \(killed by SIGKILL\)"):
        run_ranks_on_ray(job)
    killer.join()
    deadline = time.monotonic() + 15  # the kernel may take a moment on a busy machine
    while (left := _running(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def test_a_signal_stops_the_ranks(cluster, tmp_path, monkeypatch):
    job = make_job(tmp_path, monkeypatch, "wait")

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / "rank-1.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(InterruptedRunError, match=r"Stopped by SIGTERM\. No checkpoint was written") as caught:
        run_ranks_on_ray(job)
    interrupter.join()
    assert caught.value.exit_code == 143


def test_more_than_the_cluster_has_is_refused_at_once(cluster, tmp_path, monkeypatch):
    job = make_job(tmp_path, monkeypatch, "end")
    with pytest.raises(LaunchError, match="2 ranks need 4 CPU, but the Ray cluster has 2"):
        run_ranks_on_ray(job, RayResources(cpus_per_rank=2))
    with pytest.raises(LaunchError, match="need 2 GPU, but the Ray cluster has 0"):
        run_ranks_on_ray(job, RayResources(gpus_per_rank=1))
    monkeypatch.setattr(ray_launch, "PLACEMENT_TIMEOUT_S", 0.5)
    held = cluster.util.placement_group([{"CPU": 2}])
    held.wait(timeout_seconds=10)
    with pytest.raises(LaunchError, match="no room for 2 ranks"):
        run_ranks_on_ray(job)
    cluster.util.remove_placement_group(held)


def _running(folder: Path) -> list[Path]:
    return [path for path in Path("/proc").iterdir() if path.name.isdecimal() and _runs(path, folder)]


def _runs(process: Path, folder: Path) -> bool:
    try:
        return str(folder) in (process / "cmdline").read_text()
    except OSError:
        return False
