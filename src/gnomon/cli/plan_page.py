"""Writing the pages of `gnomon plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gnomon.cli._output import free_path
from gnomon.errors import ReportError


def write_page(path: Path, force: bool, render: Callable[[], str]) -> Path:
    """Write a page to `path`, or beside it where that exists and `force` is unset; return where it is.

    What makes writing impossible is found before the page is rendered, which takes seconds.
    """
    from gnomon.spec._noun import write_atomically

    if path.is_dir():
        raise ReportError(f"--html '{path}' is a folder. Name a file in it: {path / 'plan.html'}.")
    if not path.parent.is_dir():
        raise ReportError(f"--html '{path}': the folder '{path.parent}' does not exist. Make it, or name another.")
    return write_atomically(free_path(path, force), render())
