"""Files of JSON lines: appended whole or not at all, and read from where one left off."""

from __future__ import annotations

import errno
import json
import os
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gnomon.errors import TrackerWarning

READ_BYTES = 2**20
LINES_PER_WRITE = 100


class LineAppender:
    """Appends each line at once, with one system call and no fsync.

    When the disk is full it warns once, keeps the lines in memory and tries again with the next one; lines that
    could not be written by the end are printed to stderr.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._file).st_size
        self._pending: deque[bytes] = deque()
        self._warned = False

    def append(self, value: Any) -> None:
        """Append `value` as one line of JSON."""
        self._pending.append(json.dumps(value).encode() + b"\n")
        self._write()

    def close(self) -> None:
        """Write what is left and close the file; harmless when called twice."""
        if self._file < 0:
            return
        self._write()
        os.close(self._file)
        self._file = -1
        if self._pending:
            left = b"".join(self._pending).decode()
            print(f"Rows that could not be written to '{self.path}':\n{left}", end="", file=sys.stderr)

    def _write(self) -> None:
        """Write what is pending; when that fails, it has cost one system call and not the writing of everything."""
        while self._pending:
            lines = list(islice(self._pending, LINES_PER_WRITE))
            data = b"".join(lines)
            try:
                if os.write(self._file, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                os.ftruncate(self._file, self._size)
                self._warn(error)
                return
            self._size += len(data)
            for _ in lines:
                self._pending.popleft()

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"'{self.path}' cannot be written: {error.strerror}. Training goes on; the rows are kept in memory "
                "and written as soon as that is possible. Free space on this disk.",
                TrackerWarning,
                stacklevel=5,
            )
        self._warned = True


class LineReader:
    """Reads the complete lines of a file that grows; a file that is not there yet is empty.

    The file stays open: one that is replaced by a resumed run is read to its own end.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def size_bytes(self) -> int:
        """Return the size of the file at this moment."""
        return os.fstat(self._file).st_size if self._open() and self._file is not None else 0

    def read(self, offset_bytes: int, max_lines: int) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the mappings from `offset_bytes` on, each with the offset of its end; what is no JSON is left out."""
        if not self._open() or self._file is None:
            return
        data = os.pread(self._file, READ_BYTES, offset_bytes)
        while len(data) % READ_BYTES == 0 and data and b"\n" not in data:  # a very long line
            more = os.pread(self._file, READ_BYTES, offset_bytes + len(data))
            if not more:
                return
            data += more
        start = 0
        for _ in range(max_lines):
            end = data.find(b"\n", start) + 1
            if end == 0:
                return
            try:
                value = json.loads(data[start:end])
            except ValueError:
                value = {}
            yield value if isinstance(value, dict) else {}, offset_bytes + end
            start = end

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> bool:
        if self._file is None and self.path.exists():
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        return self._file is not None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the mappings in the complete lines of a file; empty when there is no file."""
    reader, found, offset = LineReader(path), [], 0
    while lines := list(reader.read(offset, 1000)):
        found += [value for value, _ in lines if value]
        offset = lines[-1][1]
    reader.close()
    return found
