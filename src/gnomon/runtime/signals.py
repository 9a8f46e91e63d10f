"""Signals set a flag, and the loop acts at the step boundary; a rank ends with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here: a forked child should not load it


STOP_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGUSR2] if hasattr(signal, "SIGUSR2") else [])]
"""Ctrl-C, the end of a job, and what a scheduler sends some time before it (`sbatch --signal=USR2@60`)."""


class StopFlag:
    """Context manager under which STOP_SIGNALS only set `signal_name`; the old handlers come back at the end.

    Python lets only the main thread handle signals: in any other thread the flag is never set.
    """

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self.count = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self.signal_name is not None

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            self._previous = {s: signal.signal(s, self._receive) for s in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal_name = self.signal_name or signal.Signals(number).name
        self.count += 1


@contextmanager
def deadly_signals() -> Iterator[None]:
    """Let STOP_SIGNALS end the process at once, for a call that waits outside of Python and has nothing to lose yet.

    Where Python handles a signal, it can do so only when such a call returns. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def die_with_parent(parent_pid: int | None = None) -> None:
    """Ask the kernel to kill this process when its parent dies, even by SIGKILL (Linux; elsewhere nothing is done).

    With `parent_pid`, the process ends at once if that parent is dead already.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent_pid is not None and os.getppid() != parent_pid:
        os._exit(1)
