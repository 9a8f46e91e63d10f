"""The step that measures a run."""

from __future__ import annotations

from gnomon.component import Component
from gnomon.pipeline.run import open_run, refuse_existing
from gnomon.profile.measurement import Measurement
from gnomon.runtime.run_directory import RunDirectory


class Profile(Component):
    """Profiles a few steps of a run with its own settings and joins them with its metrics."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def execute(self, run: RunDirectory | None = None) -> Measurement:
        """Return the measurement, saved as measurement.json of the given run or else of `run_dir`."""
        from gnomon.profile.measure import measure

        run = run or open_run(self.run_dir, self.name)
        keep_outdated(run)
        refuse_existing(run.measurement, self.name)
        return measure(run)


def keep_outdated(run: RunDirectory) -> None:
    """Rename a measurement that the run has outgrown, because training went on, to measurement-1.json and so on."""
    if not run.measurement.exists() or run.measurement.stat().st_mtime > run.metrics.stat().st_mtime:
        return
    number = 1
    while (kept := run.path / f"measurement-{number}.json").exists():
        number += 1
    run.measurement.rename(kept)
