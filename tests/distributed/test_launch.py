"""Real ranks under run_ranks: how they end, what the user is told, and that nothing is left of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gnomon.errors import (
    CheckpointError,
    GnomonError,
    InterruptedRunError,
    LaunchError,
    PortInUseError,
    RankFailedError,
)
from gnomon.launch import _watch, local
from gnomon.launch.local import RankJob, run_ranks

WORKER = """
import os, signal, sys, time
from gnomon.errors import CheckpointError, InterruptedRunError
from gnomon.launch.rank_errors import report_checkpoint, report_rank_error
from gnomon.runtime.signals import StopFlag

rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))

def hello():
    print("hello from", rank, "with", os.environ["OMP_NUM_THREADS"], "threads", sys.argv[2:], flush=True)
    print("a warning", file=sys.stderr)

def die(how):
    if rank != ranks - 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a rank that hangs in a collective
        time.sleep(60)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        sys.exit(3)
    raise CheckpointError("The disk is full.") if how == "gnomon" else ValueError("boom.\\nmore")

def checkpoint_on_stop():
    with StopFlag() as stop:
        open(sys.argv[2] + f"/ready-{rank}", "w").close()
        while not stop:
            time.sleep(0.05)
        if rank == 0:
            report_checkpoint(7, "runs/a/checkpoints/7")
        raise InterruptedRunError(f"{stop.signal_name} arrived; checkpoint at step 7.")

def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(sys.argv[2] + f"/ready-{rank}", "w").close()
    time.sleep(60)

def die_in_training():
    import torch
    from gnomon.runtime.environment import RankEnvironment
    from gnomon.strategy.registry import create_strategy

    strategy = create_strategy("ddp", RankEnvironment.detect(), torch.device("cpu"))
    strategy.setup()
    model = strategy.prepare(torch.nn.Linear(8, 8))
    for step in range(100):
        with StopFlag():
            model(torch.ones(2, 8)).sum().backward()
        if rank == 1 and step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

with report_rank_error():
    roles = {"hello": hello, "stop": checkpoint_on_stop, "deaf": deaf, "train": die_in_training}
    roles.get(sys.argv[1], lambda: die(sys.argv[1]))()
"""
DRIVER = """
import sys
from pathlib import Path
from gnomon.errors import GnomonError
from gnomon.launch.local import RankJob, run_ranks
try:
    run_ranks(RankJob(module="worker", arguments=(sys.argv[1], sys.argv[2]), log_dir=Path(sys.argv[2]),
                      ranks=int(sys.argv[3])))
except GnomonError as error:
    print(type(error).__name__, error, file=sys.stderr)
    sys.exit(error.exit_code)
"""

Job = Callable[..., RankJob]


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Make the worker module importable, and mark every process that the test starts; none may be left after it."""
    (tmp_path / "worker.py").write_text(WORKER)
    mark = uuid.uuid4().hex
    monkeypatch.setenv("GNOMON_TEST_MARK", mark)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    yield mark
    monkeypatch.undo()
    assert wait_until(lambda: not marked(mark), 5), f"left over: {marked(mark)}"


@pytest.fixture
def job(tmp_path: Path, mark: str) -> Job:
    def make(*arguments: str, ranks: int = 1, port: int | None = None, threads: int | None = None) -> RankJob:
        return RankJob(
            module="worker",
            arguments=arguments,
            log_dir=tmp_path / "logs",
            ranks=ranks,
            port=port,
            threads_per_rank=threads,
        )

    return make


def marked(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def wait_until(condition: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def zombies() -> list[str]:
    states = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")]
    return [" ".join(fields[:2]) for fields in states if fields[0] == "Z" and int(fields[1]) == os.getpid()]


def failure(job: RankJob) -> GnomonError:
    with pytest.raises(GnomonError) as caught:
        run_ranks(job)
    assert zombies() == []
    assert list(job.log_dir.glob("*.pid")) == []
    return caught.value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def test_one_rank_talks_to_the_terminal_and_logs_its_stderr(job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    run_ranks(job("hello", "a b", threads=3))
    assert capfd.readouterr() == ("hello from 0 with 3 threads ['a b']\n", "")
    assert (job().log_dir / "rank-0.stderr.log").read_text() == "a warning\n"


@pytest.mark.torch_dist
@pytest.mark.parametrize("fixed_port", [False, True])
def test_of_two_ranks_only_the_first_talks(job: Job, capfd: pytest.CaptureFixture[str], fixed_port: bool) -> None:
    run_ranks(job("hello", ranks=2, threads=1, port=free_port() if fixed_port else None))
    assert capfd.readouterr() == ("hello from 0 with 1 threads []\n", "")
    assert (job().log_dir / "rank-1.stdout.log").read_text() == "hello from 1 with 1 threads []\n"
    assert (job().log_dir / "rank-1.stderr.log").read_text() == "a warning\n"


def test_a_second_attempt_appends_to_the_logs_and_forgets_the_old_error(job: Job) -> None:
    assert "boom" in str(failure(job("raise")))
    run_ranks(job("hello"))
    assert (job().log_dir / "rank-0.stderr.log").read_text().endswith("a warning\n")
    assert "boom" in (job().log_dir / "rank-0.stderr.log").read_text()
    assert not (job().log_dir / "rank-0.error.json").exists()


def test_a_single_rank_that_is_killed(job: Job) -> None:
    error = failure(job("kill"))
    assert type(error) is RankFailedError
    assert "Rank 0 of 1 died (killed by SIGKILL)" in str(error)
    assert "possibly out of memory" in str(error)
    assert str(job().log_dir / "rank-0.stderr.log") in str(error)


def test_a_single_rank_that_leaves_with_an_exit_code(job: Job) -> None:
    assert "Rank 0 of 1 died (exit code 3)" in str(failure(job("exit")))


def test_a_module_that_does_not_exist(job: Job, tmp_path: Path) -> None:
    error = failure(RankJob(module="no_such_module", arguments=(), log_dir=tmp_path / "logs"))
    assert "No module named no_such_module" in str(error)


def test_the_error_of_a_rank_comes_back_as_itself(job: Job) -> None:
    error = failure(job("gnomon"))
    assert type(error) is CheckpointError
    assert str(error) == "The disk is full."
    report = json.loads((job().log_dir / "rank-0.error.json").read_text())
    assert "Traceback" in report["traceback"]


@pytest.mark.torch_dist
@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("kill", RankFailedError, "Rank 1 of 2 died (killed by SIGKILL)."),
        ("gnomon", CheckpointError, "The disk is full."),
    ],
)
def test_one_of_two_ranks_fails_while_the_other_hangs(
    job: Job, monkeypatch: pytest.MonkeyPatch, how: str, kind: type, message: str
) -> None:
    monkeypatch.setattr(_watch, "FAILURE_GRACE_S", 1.0)
    begin = time.monotonic()
    error = failure(job(how, ranks=2))
    assert type(error) is kind
    assert str(error).startswith(message)
    assert time.monotonic() - begin < 20


@pytest.mark.torch_dist
def test_a_rank_killed_during_training_is_named_and_not_its_neighbour(job: Job) -> None:
    error = failure(job("train", ranks=2))
    assert str(error).startswith("Rank 1 of 2 died (killed by SIGKILL).")


def start_driver(how: str, folder: Path, ranks: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, how, str(folder), str(ranks)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert wait_until(lambda: all((folder / f"ready-{rank}").exists() for rank in range(ranks)), 30)
    return driver


@pytest.mark.parametrize(
    ("ranks", "number", "words"),
    [
        (1, signal.SIGTERM, "SIGTERM"),
        (1, signal.SIGINT, "Ctrl-C"),
        pytest.param(2, signal.SIGINT, "Ctrl-C", marks=pytest.mark.torch_dist),
    ],
)
def test_an_interrupt_lets_the_ranks_write_their_checkpoint(
    tmp_path: Path, mark: str, ranks: int, number: signal.Signals, words: str
) -> None:
    driver = start_driver("stop", tmp_path, ranks)
    driver.send_signal(number)
    _, message = driver.communicate(timeout=30)
    assert driver.returncode == 128 + number
    assert message.splitlines() == [f"InterruptedRunError Stopped by {words}. SIGTERM arrived; checkpoint at step 7."]
    assert json.loads((tmp_path / "last_checkpoint.json").read_text())["step"] == 7


def test_a_second_interrupt_does_not_wait(tmp_path: Path, mark: str) -> None:
    driver = start_driver("deaf", tmp_path, 1)
    driver.send_signal(signal.SIGINT)
    time.sleep(0.5)
    driver.send_signal(signal.SIGINT)
    _, message = driver.communicate(timeout=10)
    assert driver.returncode == InterruptedRunError.exit_code
    assert "were killed. No checkpoint was written." in message


@pytest.mark.torch_dist
def test_killing_the_parent_leaves_no_orphan(tmp_path: Path, mark: str) -> None:
    driver = start_driver("deaf", tmp_path, 2)
    assert len(marked(mark)) == 4  # driver, torchrun, two ranks
    driver.kill()
    driver.communicate(timeout=10)
    assert wait_until(lambda: not marked(mark), 5)


def test_killing_the_parent_of_a_single_rank_leaves_no_orphan(tmp_path: Path, mark: str) -> None:
    driver = start_driver("deaf", tmp_path, 1)
    driver.kill()
    driver.communicate(timeout=10)
    assert wait_until(lambda: not marked(mark), 5)


@pytest.mark.torch_dist
def test_killing_torchrun_ends_the_ranks_and_is_reported(tmp_path: Path, mark: str) -> None:
    driver = start_driver("deaf", tmp_path, 2)
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in marked(mark)}
    (torchrun,) = [pid for pid, command in commands.items() if "torch.distributed.run" in command]
    os.kill(torchrun, signal.SIGKILL)
    _, message = driver.communicate(timeout=15)
    assert driver.returncode == 1
    assert message.startswith("RankFailedError torchrun, which holds the 2 ranks together, died (killed by SIGKILL)")


def test_a_taken_port_is_refused_before_anything_starts(job: Job) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"port={port} is in use") as caught:
            run_ranks(job("hello", ranks=2, port=port))
    assert "port=null" in str(caught.value)
    assert not job().log_dir.exists()


@pytest.mark.torch_dist
def test_a_port_lost_after_the_check_gives_the_same_error(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "check_port", lambda port: None)
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        assert type(failure(job("hello", ranks=2, port=holder.getsockname()[1]))) is PortInUseError


@pytest.mark.parametrize(("ranks", "port", "message"), [(0, None, "ranks=0"), (2, 70000, "not a port"), (2, 0, "port")])
def test_impossible_jobs(job: Job, ranks: int, port: int | None, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        run_ranks(job("hello", ranks=ranks, port=port))


def test_a_log_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match="cannot be used: Not a directory"):
        run_ranks(RankJob(module="worker", arguments=(), log_dir=tmp_path / "file" / "logs"))
