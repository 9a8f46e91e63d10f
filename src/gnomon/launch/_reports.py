"""What the ranks of a job left in its log folder, and the error that it amounts to."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.errors import GnomonError, InterruptedRunError, LaunchError, PortInUseError, RankFailedError
from gnomon.launch._processes import is_alive
from gnomon.launch.rank_errors import LAST_CHECKPOINT, RankError

LAUNCHER_LOG = "launcher.log"
_EXIT_CODE = re.compile(r"rank\s*:\s*(\d+) \(local_rank: \d+\)\s*exitcode\s*:\s*(-?\d+)")
_HINTS = {
    "SIGKILL": "gnomon did not send it: possibly out of memory (`dmesg` tells), or a limit of the batch system. ",
    "SIGBUS": "Possibly /dev/shm or the disk of a memory-mapped file is full. ",
    "SIGSEGV": "A native library crashed; the log holds the Python frames. ",
    "SIGABRT": "A native library aborted; the log holds its message. ",
}


class RankReports:
    """The files that the ranks of one job write into `log_dir` (see `rank_errors`)."""

    def __init__(self, log_dir: Path, ranks: int) -> None:
        self.log_dir = log_dir
        self.ranks = ranks

    def clear(self) -> None:
        """Remove the reports of an earlier attempt; logs and the last checkpoint stay."""
        for rank in range(self.ranks):
            self._error_file(rank).unlink(missing_ok=True)
        self.clear_pids()

    def clear_pids(self) -> None:
        """Remove the process ids that ranks which were killed left behind."""
        for rank in range(self.ranks):
            self._pid_file(rank).unlink(missing_ok=True)

    def pids(self) -> dict[int, int]:
        """Return {rank: process id} of the ranks that started and have not left in good order."""
        texts = {rank: _read(self._pid_file(rank)) for rank in range(self.ranks)}
        return {rank: int(text) for rank, text in texts.items() if text.isdecimal()}

    def silent_deaths(self) -> list[int]:
        """Return the ranks that are gone without having said why."""
        gone = [rank for rank, pid in self.pids().items() if not is_alive(pid)]
        return [rank for rank in gone if self._pid_file(rank).exists()]  # an orderly exit removes it first

    def errors(self) -> list[RankError]:
        """Return the errors that ranks reported, the earliest first."""
        texts = [_read(self._error_file(rank)) for rank in range(self.ranks)]
        return sorted((RankError(**json.loads(text)) for text in texts if text), key=lambda error: error.time_s)

    def checkpoint_sentence(self) -> str:
        """Return a sentence that names the last checkpoint and how to continue, or says that there is none."""
        text = _read(self.log_dir / LAST_CHECKPOINT)
        if not text:
            return "No checkpoint was written."
        document: dict[str, Any] = json.loads(text)
        return f"Last checkpoint: step {document['step']} in '{document['checkpoint']}'; continue with resume=true."

    def log_of(self, rank: int) -> Path:
        """Return the file with the standard error of a rank."""
        return self.log_dir / f"rank-{rank}.stderr.log"

    def _pid_file(self, rank: int) -> Path:
        return self.log_dir / f"rank-{rank}.pid"

    def _error_file(self, rank: int) -> Path:
        return self.log_dir / f"rank-{rank}.error.json"


def explain_failure(reports: RankReports, silent: list[int], exit_code: int | None, launcher_text: str) -> GnomonError:
    """Return the error to raise for a job that failed, the likeliest cause first.

    `silent` are the ranks that died without a word before anything was killed here, `exit_code` is that of the
    launched process (negative: a signal; None: it hung and was killed here), `launcher_text` what torchrun wrote.
    A rank that crashed outranks the broken connections that its neighbours then report, and so does a GnomonError,
    which names its cause. A rank ended by SIGTERM is a consequence: torchrun stops the others that way.
    """
    if reports.ranks > 1 and exit_code is not None and exit_code < 0:
        return _torchrun_death(reports, exit_code)
    codes: Mapping[int, int | None] = exit_codes(launcher_text) if reports.ranks > 1 else {0: exit_code}
    return explain_exits(reports, silent, codes, launcher_text)


def explain_exits(
    reports: RankReports, silent: list[int], codes: Mapping[int, int | None], launcher_text: str = ""
) -> GnomonError:
    """Return the error to raise for ranks that ended with these exit codes, the first to end first."""
    errors = reports.errors()
    crashed = [rank for rank in (*codes, *silent) if rank in silent and _crashed(codes.get(rank), errors)]
    if crashed:
        return _death(reports, crashed[0], codes.get(crashed[0]))
    reported = next((error for error in errors if error.error_class and not error.is_interruption), None)
    if reported or errors:
        return _reported(reports, reported or errors[0])
    if "EADDRINUSE" in launcher_text:
        return port_in_use()
    rank = next((rank for rank in (*codes, *silent) if codes.get(rank) != 0), None)
    if rank is not None:
        return _death(reports, rank, codes.get(rank))
    return LaunchError(
        f"The {reports.ranks} ranks could not be started. The log of torchrun says why: "
        f"{reports.log_dir / LAUNCHER_LOG}"
    )


def explain_interruption(reports: RankReports, signal_name: str, was_killed: bool) -> GnomonError:
    """Return the error to raise after a signal stopped the job: InterruptedRunError, or what went wrong meanwhile."""
    errors = reports.errors()
    for error in errors:
        if error.error_class is not None and not error.is_interruption:
            return _reported(reports, error)
    said = next((error.message for error in errors), "") if all(e.is_interruption for e in errors) else ""
    what = "Stopped by Ctrl-C." if signal_name == "SIGINT" else f"Stopped by {signal_name}."
    killed = " The ranks did not stop at a step boundary in time and were killed." if was_killed else ""
    result = InterruptedRunError(f"{what}{killed} {said or reports.checkpoint_sentence()}")
    result.exit_code = 128 + signal.Signals[signal_name].value
    return result


def exit_codes(launcher_text: str) -> dict[int, int]:
    """Return {rank: exit code} from torchrun's summary of a failure, its root cause first."""
    _, _, root_cause = launcher_text.rpartition("Root Cause")
    found = [(int(rank), int(code)) for rank, code in _EXIT_CODE.findall(root_cause)]
    others = [(int(rank), int(code)) for rank, code in _EXIT_CODE.findall(launcher_text)]
    return dict([*found, *(pair for pair in others if pair not in found)])


def port_in_use(port: int | None = None) -> PortInUseError:
    """Return the error for a rendezvous port that somebody else has."""
    which = "The rendezvous port" if port is None else f"port={port}"
    find = "`ss -ltnp` shows who. " if port is None else f"`ss -ltnp sport = :{port}` shows who. "
    return PortInUseError(
        f"{which} is in use on this machine, by another run or by a service. {find}"
        "Set another port, or port=null to let the system choose a free one."
    )


def describe_exit(code: int) -> str:
    """Return `'killed by SIGKILL'` or `'exit code 3'`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _crashed(code: int | None, errors: list[RankError]) -> bool:
    """Return whether a silent death is a cause; when its exit code was lost, only if nobody reports another one."""
    return not errors if code is None else code != -signal.SIGTERM


def _reported(reports: RankReports, error: RankError) -> GnomonError:
    if error.error_class is not None:
        revived = error.error_class(error.message)
        revived.exit_code = error.exit_code
        return revived
    what = f"{error.type_name}: {error.message.splitlines()[0].rstrip('.')}" if error.message else error.type_name
    return RankFailedError(
        f"Rank {error.rank} of {reports.ranks} failed with {what}. {_others(reports)}"
        f"Log: {reports.log_of(error.rank)}. {reports.checkpoint_sentence()}"
    )


def _death(reports: RankReports, rank: int, code: int | None) -> RankFailedError:
    how = f" ({describe_exit(code)})" if code is not None else ""
    return RankFailedError(
        f"Rank {rank} of {reports.ranks} died{how}. {_hint(code)}{_others(reports)}"
        f"Log: {reports.log_of(rank)}. {reports.checkpoint_sentence()}"
    )


def _torchrun_death(reports: RankReports, code: int) -> RankFailedError:
    return RankFailedError(
        f"torchrun, which holds the {reports.ranks} ranks together, died ({describe_exit(code)}), and they ended with "
        f"it. {_hint(code)}Log: {reports.log_dir / LAUNCHER_LOG}. {reports.checkpoint_sentence()}"
    )


def _hint(code: int | None) -> str:
    how = "" if code is None else describe_exit(code)
    return next((text for name, text in _HINTS.items() if how.endswith(name)), "")


def _others(reports: RankReports) -> str:
    return "The other ranks were stopped. " if reports.ranks > 1 else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
