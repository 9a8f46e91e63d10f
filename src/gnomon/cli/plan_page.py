"""Writing the pages of `gnomon plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gnomon.cli._output import free_path
from gnomon.errors import ReportError


def check_page(path: Path) -> None:
    """Raise ReportError where no page can be written to `path`: before the work that takes seconds, and its files."""
    from tempfile import TemporaryFile

    if path.is_dir():
        raise ReportError(f"--html '{path}' is a folder. Name a file in it: {path / 'plan.html'}.")
    if path.exists() and not path.is_file():
        raise ReportError(f"--html '{path}' is no regular file. Name another.")
    if not path.parent.is_dir():
        raise ReportError(f"--html '{path}': the folder '{path.parent}' does not exist. Make it, or name another.")
    try:
        TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _unwritable(path, error) from None


def write_page(path: Path, force: bool, render: Callable[[], str]) -> Path:
    """Write a page to `path`, or beside it where that exists and `force` is unset; return where it is.

    Raises ReportError where it cannot be written, which `check_page` finds earlier.
    """
    from gnomon.spec._noun import write_atomically

    target = free_path(path, force)
    text = render()
    try:
        return write_atomically(target, text)
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> ReportError:
    return ReportError(
        f"--html '{path}' cannot be written: {error.strerror}. Check the folder, its permissions and the free space."
    )
