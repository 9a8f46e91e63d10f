"""What a pipeline prints while it runs."""

from __future__ import annotations

from gnomon.units import format_seconds


def print_finished(label: str, seconds: float) -> None:
    """Print one line for a finished step on stderr, so that stdout stays for results."""
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(("✓ ", "green"), (label, "bold"), f"  {format_seconds(seconds)}")
    Console(stderr=True, highlight=False).print(line)
