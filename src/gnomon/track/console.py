"""One line of progress: step, loss, step time, tokens/s, MFU and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gnomon.track.base import Tracker
from gnomon.track.settings import TrackerSettings
from gnomon.units import format_count, format_percent, format_seconds

REFRESH_S = 0.1


class ConsoleTracker(Tracker):
    """Rewrites its line on a terminal, ten times a second at most; elsewhere it prints one every tenth of the run."""

    in_loop = True
    settings = TrackerSettings

    def __init__(self, num_steps: int, console: Console | None = None) -> None:
        self._num_steps = num_steps
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._live: Live | None = None
        self._eval_loss: float | None = None
        self._next_step = 0
        self._shown_at_s = 0.0
        self._unshown: Mapping[str, Any] | None = None

    def log(self, row: Mapping[str, Any]) -> None:
        """Show a training row, or the figures of a row that sums something up; the evaluation loss stays in sight.

        Rows without a loss are not shown.
        """
        if not any(key.endswith("loss") for key in row):
            return
        if "step_time_s" not in row:
            self._eval_loss = row.get("eval_loss", self._eval_loss)
            self._console.print(format_summary(row, self._num_steps))
            return
        if self._console.is_terminal:
            if time.monotonic() - self._shown_at_s >= REFRESH_S:
                self._show(format_row(row, self._num_steps, self._eval_loss))
                self._unshown = None
            else:
                self._unshown = row
        elif row["step"] >= self._next_step or row["step"] == self._num_steps:
            self._console.print(format_row(row, self._num_steps, self._eval_loss))
            tenth = max(1, self._num_steps // 10)
            self._next_step = (row["step"] // tenth + 1) * tenth

    def close(self) -> None:
        """Leave the last line on the terminal."""
        if self._live is not None:
            if self._unshown is not None:
                self._show(format_row(self._unshown, self._num_steps, self._eval_loss))
            self._live.stop()
            self._live = None

    def _show(self, line: str) -> None:
        if self._live is None:
            # no refresh thread: it would take time from the training threads
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)
        self._shown_at_s = time.monotonic()


def format_summary(row: Mapping[str, Any], num_steps: int) -> str:
    """Return the line of an evaluation or a test."""
    figures = {key: value for key, value in row.items() if key not in ("step", "time_s") and value is not None}
    parts = [f"{key.replace('_', ' ')} {value:.4f}" for key, value in figures.items()]
    return "  ".join([f"step {row['step']:>{len(str(num_steps))}}/{num_steps}", *parts])


def format_row(row: Mapping[str, Any], num_steps: int, eval_loss: float | None = None) -> str:
    """Return the line of one training row."""
    step = row["step"]
    parts = [f"step {step:>{len(str(num_steps))}}/{num_steps}"]
    losses = {key: value for key, value in row.items() if key.endswith("loss") and isinstance(value, float)}
    parts += [f"{key.replace('_', ' ')} {value:.4f}" for key, value in losses.items()]
    if eval_loss is not None:
        parts.append(f"eval {eval_loss:.4f}")
    if row.get("step_time_s") is None:
        return "  ".join(parts)
    parts.append(f"{format_seconds(row['step_time_s'])}/step")
    if row.get("tokens_per_s") is not None:
        parts.append(f"{format_count(row['tokens_per_s'])} tokens/s")
        parts.append("MFU unknown" if row.get("mfu") is None else f"MFU {format_percent(row['mfu'])}")
    elif row.get("samples_per_s") is not None:
        parts.append(f"{format_count(row['samples_per_s'])} samples/s")
    parts.append(f"ETA {format_seconds((num_steps - step) * row['step_time_s'])}")
    return "  ".join(parts)
