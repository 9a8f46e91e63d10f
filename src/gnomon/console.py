"""What is printed for people: consoles and progress bars that write no escape code where NO_COLOR is set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

PIPE_WIDTH = 2000
"""Lines are folded for people, not for programs."""


def no_color() -> bool:
    """Return whether the user asked for plain text (https://no-color.org): here neither bold nor italic text either."""
    return bool(os.environ.get("NO_COLOR"))


def make_console(fold_in_pipes: bool = False, stderr: bool = False) -> Console:
    """Return a console on stdout or stderr: plain with NO_COLOR, and unfolded in a pipe unless `fold_in_pipes`."""
    from rich.console import Console

    color_system = None if no_color() else "auto"
    console = Console(color_system=color_system, stderr=stderr)  # type: ignore[arg-type]
    if console.is_terminal or fold_in_pipes:
        return console
    return Console(width=PIPE_WIDTH, color_system=color_system, stderr=stderr)  # type: ignore[arg-type]


def make_progress(*columns: ProgressColumn) -> Progress:
    """Return progress bars on stderr that vanish at the end; none with NO_COLOR, for they move the cursor."""
    from rich.progress import Progress

    return Progress(*columns, console=make_console(stderr=True), transient=True, disable=no_color())
