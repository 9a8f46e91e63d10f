"""Rows appended to metrics.jsonl, one JSON object per line."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.errors import TrackerWarning
from gnomon.track.base import Tracker


class JsonlTracker(Tracker):
    """Appends each row at once, whole or not at all.

    When the disk is full it warns once, keeps the rows in memory and tries again with the next row; rows that
    could not be written by the end are printed to stderr.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._file).st_size
        self._pending = ""
        self._warned = False

    def log(self, row: Mapping[str, Any]) -> None:
        """Append the row; one system call, no fsync."""
        self._pending += json.dumps(row) + "\n"
        self._write()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._file < 0:
            return
        if self._pending:
            self._write()
        os.close(self._file)
        self._file = -1
        if self._pending:
            print(f"Rows that could not be written to '{self.path}':\n{self._pending}", end="", file=sys.stderr)

    def _write(self) -> None:
        data = self._pending.encode()
        try:
            if os.write(self._file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, self._size)
            self._warn(error)
            return
        self._size += len(data)
        self._pending = ""

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"'{self.path}' cannot be written: {error.strerror}. Training goes on; the rows are kept in memory "
                "and written as soon as that is possible. Free space on this disk.",
                TrackerWarning,
                stacklevel=4,
            )
        self._warned = True
