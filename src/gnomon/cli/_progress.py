"""Progress bars of the verbs that take long."""

from __future__ import annotations

from collections.abc import Callable


class ProgressBars:
    """Progress bars on stderr, where that is a terminal; one line per task."""

    def __init__(self) -> None:
        import sys

        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from gnomon.console import make_progress

        self._progress = make_progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        if not (sys.stderr.isatty() and self._progress.console.is_interactive):
            self._progress.disable = True  # rich would write an empty line at the end

    def __enter__(self) -> ProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, what: str, total: int | None = None) -> Callable[..., None]:
        """Show a new task; return the function that is told how much of it is done, and of how much in all."""
        task = self._progress.add_task(what, total=total)

        def show(done: int, total: int | None = None) -> None:
            self._progress.update(task, completed=done, total=total)

        return show
