"""What every tracker must do, as a test class: subclass it in your tests and say how to make your tracker."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from gnomon.track.base import Tracker

TRAINING_ROW: dict[str, Any] = {
    "step": 1, "tokens": 256, "loss": 5.5, "lr": 1e-3, "grad_norm": 1.0, "step_time_s": 0.1, "tokens_per_s": 2560.0,
    "mfu": 0.4,
}  # fmt: skip
EVALUATION_ROW: dict[str, Any] = {"step": 1, "eval_loss": 5.4}


class TrackerConformance:
    """Tests for pytest, each with a new tracker."""

    def create_tracker(self, folder: Path) -> Tracker:
        """Return the tracker under test; it may write to `folder`."""
        raise NotImplementedError

    def test_takes_every_kind_of_row(self, tmp_path: Path) -> None:
        """Training and evaluation rows, what is unknown (None), and keys that nobody has heard of."""
        tracker = self.create_tracker(tmp_path)
        unknown = dict.fromkeys(("tokens", "grad_norm", "tokens_per_s", "mfu"))
        for row in (TRAINING_ROW, EVALUATION_ROW, {**TRAINING_ROW, "step": 2, **unknown, "my_metric": 1.5}):
            tracker.log(row)
        tracker.close()

    def test_leaves_the_row_as_it_is(self, tmp_path: Path) -> None:
        """All trackers of a run are given the same row."""
        tracker = self.create_tracker(tmp_path)
        row = copy.deepcopy(TRAINING_ROW)
        tracker.log(row)
        tracker.close()
        assert row == TRAINING_ROW

    def test_closes_twice_and_without_a_row(self, tmp_path: Path) -> None:
        """A run that fails early closes its trackers too."""
        tracker = self.create_tracker(tmp_path)
        tracker.close()
        tracker.close()
