"""A file of which only so many bytes may be read."""

from __future__ import annotations

import os
from typing import BinaryIO

from gnomon.errors import CheckpointError
from gnomon.units import format_bytes


class BoundedFile:
    """Reads from `file` until `budget_bytes` are spent; a request for more is refused before it is made.

    A damaged or hostile file may announce any size. Nothing is allocated for what the file does not have. With `start`
    and `size_bytes` it is a window: only that part of the file, as if it were one of its own.
    """

    def __init__(
        self, file: BinaryIO, budget_bytes: int, what: str, start: int = 0, size_bytes: int | None = None
    ) -> None:
        self._file = file
        self._what = what
        self._start = start
        self.budget_bytes = budget_bytes
        left = max(0, file.seek(0, os.SEEK_END) - start)
        self.size_bytes = left if size_bytes is None else min(left, size_bytes)
        self.seek(0)

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes (all that are left if negative); raise CheckpointError beyond the budget."""
        left = max(0, self.size_bytes - self.tell())
        wanted = left if size < 0 else min(size, left)
        if wanted > self.budget_bytes:
            raise CheckpointError(
                f"{self._what} is larger than any checkpoint needs: more than {format_bytes(self.budget_bytes)} "
                "would have to be read. The file is damaged or made to exhaust memory."
            )
        self.budget_bytes -= wanted
        return self._file.read(wanted)

    def readline(self) -> bytes:
        """Return the bytes up to the next line end, at most what is left of the window and of the budget."""
        line = self._file.readline(max(0, min(self.budget_bytes, self.size_bytes - self.tell())))
        self.budget_bytes -= len(line)
        return line

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.tell(), os.SEEK_END: self.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"position {base + offset} lies before the start")
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell() - self._start

    def seekable(self) -> bool:
        """Return True, as `zipfile` asks."""
        return True
