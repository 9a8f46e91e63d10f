"""The step that sets prediction and measurement side by side."""

from __future__ import annotations

from gnomon.component import Component
from gnomon.pipeline.run import open_run, require
from gnomon.plan.estimate import Estimate
from gnomon.profile.measurement import Measurement
from gnomon.report.comparison import Comparison


class Compare(Component):
    """Compares the estimate of the run with its measurement."""

    def __init__(self, run_dir: str) -> None:
        self.run_dir = run_dir

    def execute(self, measurement: Measurement | None = None) -> Comparison:
        """Return the comparison, saved as comparison.json; without input, read measurement.json of the run."""
        from gnomon.report.compare import compare

        run = open_run(self.run_dir, self.name)
        estimate = Estimate.load(require(run.estimate, self.name))
        if measurement is None:
            measurement = Measurement.load(require(run.measurement, self.name))
        comparison = compare(estimate, measurement)
        comparison.save(run.comparison)
        return comparison
