"""A tracker, which `trackers: [csv]` turns on."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Any

from gnomon.track.base import Tracker
from gnomon.track.context import TrackerContext
from gnomon.track.settings import TrackerSettings


class CsvTracker(Tracker):
    """Writes metrics.csv into the run directory: step, name and value, one number a line.

    It runs in a process of its own, so that the training loop does not wait for it.
    """

    def __init__(self, settings: TrackerSettings, context: TrackerContext) -> None:
        self._file = (context.run.path / "metrics.csv").open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        if self._file.tell() == 0:
            self._writer.writerow(("step", "name", "value"))

    def log(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of a row."""
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        self._writer.writerows((row.get("step"), name, value) for name, value in numbers.items())

    def flush(self) -> None:
        """Write what is in memory to the file."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; harmless when called twice."""
        self._file.close()
