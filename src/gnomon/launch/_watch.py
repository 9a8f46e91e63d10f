"""One launched process with its ranks: start it, wait for it, stop all of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from types import TracebackType

from gnomon.errors import GnomonError, LaunchError
from gnomon.launch._processes import LAUNCH_VARIABLE, pids_of, send
from gnomon.launch._reports import LAUNCHER_LOG, RankReports, explain_failure, explain_interruption
from gnomon.runtime.signals import StopFlag, die_with_parent

POLL_S = 0.2
FAILURE_GRACE_S = 5.0  # for the other ranks, once one has failed
INTERRUPT_GRACE_S = 60.0  # for all ranks to reach a step boundary and write a checkpoint
KILL_GRACE_S = 10.0  # for torchrun to collect its dead ranks


class LaunchedProcess:
    """Context manager around a process in its own session; at the end nothing of it is left.

    It dies with this process, even by SIGKILL (Linux). Its standard error goes to launcher.log.
    """

    def __init__(self, command: list[str], environment: dict[str, str], reports: RankReports) -> None:
        self.reports = reports
        self.launch_id = uuid.uuid4().hex
        self._log_path = reports.log_dir / LAUNCHER_LOG
        self._log_start = self._log_path.stat().st_size if self._log_path.exists() else 0
        parent = os.getpid()
        try:
            with self._log_path.open("ab") as log:
                self._process = subprocess.Popen(
                    command,
                    env={**environment, LAUNCH_VARIABLE: self.launch_id},
                    stdin=subprocess.DEVNULL,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: die_with_parent(parent),
                )
        except OSError as error:
            raise LaunchError(f"'{command[0]}' cannot be started: {error.strerror}.") from None

    def __enter__(self) -> LaunchedProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        self.reports.clear_pids()

    def watch(self, stop: StopFlag) -> None:
        """Wait for the end; raise InterruptedRunError if `stop` is set, else the error that explains a failure."""
        silent: list[int] = []
        while not stop and not self._wait(POLL_S):
            silent = self.reports.silent_deaths()
            if silent or self._has_failed():
                self._wait(FAILURE_GRACE_S)
                break
        if stop:
            raise self._interrupt(stop)
        silent = silent or self.reports.silent_deaths()
        code = self._process.poll()
        self.kill()
        if code != 0:
            raise explain_failure(self.reports, silent, code, self._launcher_text())

    def kill(self) -> None:
        """Kill what is left of the launch and collect the process; ranks go first, so that torchrun collects them."""
        if self._process.poll() is None and self.reports.ranks > 1 and self._kill_descendants():
            self._wait(KILL_GRACE_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._kill_descendants()

    def _interrupt(self, stop: StopFlag) -> GnomonError:
        """Ask the ranks to stop, wait until they did, kill them if they do not, and return what to raise."""
        deadline = time.monotonic() + INTERRUPT_GRACE_S
        asked: set[int] = set()
        count = stop.count
        while stop.count == count and time.monotonic() < deadline:
            pids = set(self.reports.pids().values()) or {self._process.pid}
            for pid in pids - asked:
                send(pid, signal.SIGTERM)
            asked |= pids
            if self._wait(POLL_S):
                break
            if self._has_failed():
                deadline = min(deadline, time.monotonic() + FAILURE_GRACE_S)
        was_killed = self._process.poll() is None
        self.kill()
        return explain_interruption(self.reports, stop.signal_name or "", was_killed)

    def _has_failed(self) -> bool:
        return any(not error.is_interruption for error in self.reports.errors())

    def _wait(self, timeout_s: float) -> bool:
        """Return whether the process has ended, after waiting for it at most `timeout_s`."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _kill_descendants(self) -> bool:
        pids = [pid for pid in pids_of(self.launch_id) if pid != self._process.pid]
        for pid in pids:
            send(pid, signal.SIGKILL)
        return bool(pids)

    def _launcher_text(self) -> str:
        with self._log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", errors="replace")
