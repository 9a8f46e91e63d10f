"""The step that writes the page."""

from __future__ import annotations

from pathlib import Path

from gnomon.component import Component
from gnomon.pipeline.run import open_run
from gnomon.report.comparison import Comparison


class Report(Component):
    """Writes report.html, report.md and report.json of the run."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def execute(self, comparison: Comparison | None = None) -> Path:
        """Return the path of report.html; everything on it is read from the run directory.

        `comparison` is what the step before it returns; the page holds the one that the run directory gives.
        """
        from gnomon.report.build import build_report

        return build_report(open_run(self.run_dir, self.name))
