"""Launching without starting anything: commands, environments, reports and the errors that they amount to."""

import json
import os
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
from gnomon.launch import local
from gnomon.launch._processes import belongs_to, is_alive, pids_of
from gnomon.launch._reports import RankReports, describe_exit, exit_codes, explain_failure, explain_interruption
from gnomon.launch.local import RankJob, rank_command, rank_environment, run_ranks
from gnomon.launch.rank_errors import LOG_DIR_VARIABLE, report_checkpoint, report_rank_error
from gnomon.runtime.versions import usable_cores

SUMMARY = """
Failures:
[1]:
  time      : 2026-01-01_00:00:00
  rank      : 0 (local_rank: 0)
  exitcode  : {other} (pid: 9766)  (SIGTERM)
------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  rank      : 1 (local_rank: 1)
  exitcode  : {root} (pid: 9767)  (SIGKILL)
"""


@pytest.fixture
def reports(tmp_path: Path) -> RankReports:
    return RankReports(tmp_path, ranks=2)


def report(folder: Path, rank: int, error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv(LOG_DIR_VARIABLE, str(folder))
    monkeypatch.setenv("RANK", str(rank))
    with pytest.raises(SystemExit) as caught, report_rank_error():
        raise error
    return int(caught.value.code or 0)


def test_exit_codes_start_with_the_root_cause() -> None:
    assert list(exit_codes(SUMMARY.format(root=-9, other=-15)).items()) == [(1, -9), (0, -15)]
    assert exit_codes("nothing of the kind") == {}


@pytest.mark.parametrize(
    ("code", "words"), [(3, "exit code 3"), (-9, "killed by SIGKILL"), (-7, "killed by SIGBUS"), (-99, "signal 99")]
)
def test_exit_codes_are_told_in_words(code: int, words: str) -> None:
    assert words in describe_exit(code)


def test_a_crashed_rank_outranks_the_broken_connection_of_its_neighbour(
    reports: RankReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    report(reports.log_dir, 0, RuntimeError("Connection closed by peer"), monkeypatch)
    error = explain_failure(reports, [1], 1, SUMMARY.format(root=-11, other=1))
    assert type(error) is RankFailedError
    assert str(error).startswith("Rank 1 of 2 died (killed by SIGSEGV). A native library crashed")


def test_a_rank_that_torchrun_stopped_is_no_cause(reports: RankReports, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report(reports.log_dir, 1, CheckpointError("The disk is full."), monkeypatch) == 1
    error = explain_failure(reports, [0], 1, SUMMARY.format(root=1, other=-15))
    assert (type(error), str(error)) == (CheckpointError, "The disk is full.")
    error = explain_failure(reports, [0], None, "")  # torchrun hung, so no exit codes are known
    assert type(error) is CheckpointError


def test_a_silent_death_without_exit_code(reports: RankReports) -> None:
    assert str(explain_failure(reports, [1], None, "")).startswith("Rank 1 of 2 died. The other ranks were stopped.")


def test_a_rank_ended_by_somebody_with_sigterm(reports: RankReports) -> None:
    error = explain_failure(reports, [0, 1], 1, SUMMARY.format(root=-15, other=-15))
    assert "Rank 1 of 2 died (killed by SIGTERM)" in str(error)


def test_torchrun_that_cannot_listen(reports: RankReports) -> None:
    error = explain_failure(reports, [], 1, "DistNetworkError: ... code: -98, name: EADDRINUSE, message: ...")
    assert type(error) is PortInUseError


def test_torchrun_that_fails_by_itself(reports: RankReports) -> None:
    error = explain_failure(reports, [], 1, "ImportError")
    assert type(error) is LaunchError
    assert "launcher.log" in str(error)


def test_the_last_checkpoint_is_named(reports: RankReports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_DIR_VARIABLE, str(reports.log_dir))
    report_checkpoint(20, Path("runs/a/checkpoints/20"))
    error = explain_failure(reports, [1], 1, SUMMARY.format(root=-9, other=-15))
    assert str(error).endswith("Last checkpoint: step 20 in 'runs/a/checkpoints/20'; continue with resume=true.")


def test_an_interruption_that_a_rank_reports_keeps_its_exit_code(
    reports: RankReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = InterruptedRunError("SIGTERM arrived.")
    asked.exit_code = 143
    assert report(reports.log_dir, 1, asked, monkeypatch) == 143
    error = explain_failure(reports, [0], 1, SUMMARY.format(root=143, other=-15))
    assert (type(error), error.exit_code, str(error)) == (InterruptedRunError, 143, "SIGTERM arrived.")


@pytest.mark.parametrize(
    ("reported", "expected", "message"),
    [
        (None, InterruptedRunError, "Stopped by Ctrl-C. No checkpoint was written."),
        (InterruptedRunError("After step 3."), InterruptedRunError, "Stopped by Ctrl-C. After step 3."),
        (RuntimeError("Connection closed"), InterruptedRunError, "Stopped by Ctrl-C. No checkpoint was written."),
        (CheckpointError("The disk is full."), CheckpointError, "The disk is full."),
    ],
)
def test_what_an_interruption_amounts_to(
    reports: RankReports,
    monkeypatch: pytest.MonkeyPatch,
    reported: Exception | None,
    expected: type[GnomonError],
    message: str,
) -> None:
    if reported is not None:
        report(reports.log_dir, 0, reported, monkeypatch)
    error = explain_interruption(reports, "SIGINT", was_killed=False)
    assert (type(error), str(error)) == (expected, message)


def test_a_rank_shows_our_errors_as_messages_and_others_with_their_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path, 0, CheckpointError("The disk is full."), monkeypatch)
    assert capsys.readouterr().err == "The disk is full.\n"
    report(tmp_path, 0, ValueError("boom"), monkeypatch)
    assert "Traceback" in capsys.readouterr().err
    assert json.loads((tmp_path / "rank-0.error.json").read_text())["type_name"] == "ValueError"


def test_a_worker_started_by_hand_writes_no_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(LOG_DIR_VARIABLE, raising=False)
    with pytest.raises(SystemExit), report_rank_error():
        raise CheckpointError("The disk is full.")
    with pytest.raises(SystemExit) as caught, report_rank_error():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(tmp_path / "missing", 0, CheckpointError("The disk is full."), monkeypatch)
    assert "The disk is full." in capsys.readouterr().err


def test_a_rank_that_is_gone_without_a_word(reports: RankReports) -> None:
    dead = os.spawnvp(os.P_NOWAIT, "true", ["true"])
    os.waitpid(dead, 0)
    (reports.log_dir / "rank-0.pid").write_text(str(os.getpid()))
    (reports.log_dir / "rank-1.pid").write_text(str(dead))
    assert reports.pids() == {0: os.getpid(), 1: dead}
    assert reports.silent_deaths() == [1]
    reports.clear()
    assert reports.pids() == {}


def test_processes_are_known_by_their_launch() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)
    assert not belongs_to(os.getpid(), "no-such-launch")
    assert pids_of("no-such-launch") == []


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(local, "usable_cores", lambda: 7)
    assert rank_environment(2)["OMP_NUM_THREADS"] == rank_environment(2)["MKL_NUM_THREADS"] == "3"
    assert rank_environment(8)["OMP_NUM_THREADS"] == "1"
    assert rank_environment(8, threads_per_rank=4)["OMP_NUM_THREADS"] == "4"
    assert usable_cores() == len(os.sched_getaffinity(0))


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    assert "OMP_NUM_THREADS" not in rank_environment(2)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert rank_environment(2)["MKL_NUM_THREADS"] == "5"
    assert "MALLOC_TOP_PAD_" not in rank_environment(2)
    assert rank_environment(2, threads_per_rank=1)["OMP_NUM_THREADS"] == "1"
    assert rank_environment(1)["PYTHONUNBUFFERED"] == "1"


def test_one_rank_needs_no_torchrun(tmp_path: Path) -> None:
    one = rank_command(RankJob(module="m", arguments=("a",), log_dir=tmp_path))
    assert one[1:] == ["-m", "gnomon.launch.rank_main", "m", "a"]
    free = rank_command(RankJob(module="m", arguments=("a",), log_dir=tmp_path, ranks=3))
    assert free[-4:] == one[1:]
    assert {"--standalone", "--nproc-per-node=3", "--max-restarts=0"} <= set(free)
    fixed = rank_command(RankJob(module="m", arguments=("a",), log_dir=tmp_path, ranks=3, port=29511))
    assert {"--rdzv-backend=static", "--master-port=29511"} <= set(fixed)


def test_several_ranks_need_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="pip install"):
        run_ranks(RankJob(module="m", arguments=(), log_dir=tmp_path, ranks=2))


def test_a_privileged_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, address: object) -> None:
        raise PermissionError

    monkeypatch.setattr("socket.socket.bind", refuse)
    with pytest.raises(LaunchError, match="administrator"):
        run_ranks(RankJob(module="m", arguments=(), log_dir=tmp_path, ranks=2, port=80))


@pytest.mark.parametrize("port", [0, -1, 70000, "ssh", 1.5])
def test_what_is_not_a_port_is_named(port, tmp_path):
    with pytest.raises(LaunchError, match="is not a port"):
        run_ranks(RankJob(module="this", arguments=(), log_dir=tmp_path / "logs", ranks=2, port=port))
