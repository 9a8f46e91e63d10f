"""Where a rank shows warnings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from gnomon.errors import GnomonWarning


@contextmanager
def show_on_stdout() -> Iterator[None]:
    """Print our warnings to stdout, where the user reads the progress, and all others to stderr, which is logged."""
    before = warnings.showwarning
    warnings.showwarning = _show
    try:
        yield
    finally:
        warnings.showwarning = before


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, GnomonWarning):
        print(f"{category.__name__}: {message}", flush=True)
    else:
        print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)
