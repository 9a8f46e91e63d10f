"""The step that measures the machine."""

from __future__ import annotations

from collections.abc import Sequence

import yaml

from gnomon.component import Component
from gnomon.pipeline.run import create_run, refuse_taken
from gnomon.spec import HardwareProfile


class Calibrate(Component):
    """Makes the run directory and measures the machine with each number of ranks, in about `budget_s` seconds."""

    def __init__(self, run_dir: str, ranks: Sequence[int] = (1,), device: str = "auto", budget_s: float = 90.0) -> None:
        from gnomon.profile.calibrate import check_request

        check_request(ranks, budget_s)
        self.run_dir = run_dir
        self.ranks = tuple(ranks)
        self.device = device
        self.budget_s = budget_s

    def execute(self) -> HardwareProfile:
        """Return the profile, saved as hardware.yaml; raise RunDirectoryError if the run directory exists."""
        from gnomon.profile.calibrate import calibrate

        refuse_taken(self.run_dir)
        profile = calibrate(ranks=self.ranks, device=self.device, budget_s=self.budget_s)
        # only now, so that a calibration that fails or is interrupted leaves no half-made run behind
        run = create_run(self.run_dir, yaml.safe_dump({"run_dir": self.run_dir, "ranks": list(self.ranks)}))
        profile.save(run.hardware)
        if warning := profile.unsteady():
            print(warning)
        return profile
