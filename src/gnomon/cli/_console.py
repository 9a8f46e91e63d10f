"""The console on which the scripts print: plain where NO_COLOR is set or nobody looks, unfolded in a pipe."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 2000
"""Lines are folded for people, not for programs."""


def make_console(fold_in_pipes: bool = False) -> Console:
    """Return a console on stdout that writes no escape code at all with NO_COLOR: no bold or italic text either."""
    from rich.console import Console

    console = Console(color_system=None if os.environ.get("NO_COLOR") else "auto")
    if console.is_terminal or fold_in_pipes:
        return console
    return Console(width=PIPE_WIDTH)
