"""What a pipeline prints while it runs."""

from __future__ import annotations

from gnomon.units import format_seconds


def print_finished(label: str, seconds: float) -> None:
    """Print one line for a finished step on stderr, so that stdout stays for results."""
    from rich.text import Text

    from gnomon.console import make_console

    line = Text.assemble(("✓ ", "green"), (label, "bold"), f"  {format_seconds(seconds)}")
    make_console(stderr=True).print(line, highlight=False)
