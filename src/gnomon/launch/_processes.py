"""Find and end every process of a launch, however it was reparented (through /proc; elsewhere nothing is found)."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

LAUNCH_VARIABLE = "GNOMON_LAUNCH_ID"
_PROC = Path("/proc")


def belongs_to(pid: int, launch_id: str) -> bool:
    """Return whether process `pid` was started with GNOMON_LAUNCH_ID=`launch_id` in its environment."""
    try:
        variables = (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # gone, a zombie, or another user's
        return False
    return f"{LAUNCH_VARIABLE}={launch_id}".encode() in variables


def pids_of(launch_id: str) -> list[int]:
    """Return the live processes of a launch, this one left out."""
    if not _PROC.is_dir():
        return []
    pids = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if pid != os.getpid() and belongs_to(pid, launch_id)]


def is_alive(pid: int) -> bool:
    """Return whether process `pid` exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
