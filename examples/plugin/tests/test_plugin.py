"""The tests of the plugin: its components, and gnomon's own tests for every tracker."""

# ruff: noqa: D101, D102, D103

import statistics
from pathlib import Path

import pytest
from gnomon_plugin_example.components import Standardise, Waves
from gnomon_plugin_example.tracker import CsvTracker

from gnomon.component import OrderedSplitter
from gnomon.errors import ConfigError, DataError
from gnomon.pipeline import Pipeline
from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.conformance import TrackerConformance
from gnomon.track.context import TrackerContext
from gnomon.track.settings import TrackerSettings


def test_a_pipeline_of_its_components() -> None:
    train, validation, test = Pipeline([Waves(100), OrderedSplitter(0.8, test=0.2), Standardise()]).execute()
    assert (len(train), validation, len(test)) == (80, None, 20)
    assert statistics.fmean(train) == pytest.approx(0, abs=1e-12)
    assert statistics.pstdev(train) == pytest.approx(1)
    assert test[5] == pytest.approx(2**0.5)  # a quarter of a period into the next wave


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="length=0"):
        Waves(0)
    with pytest.raises(DataError, match="All values of the training part are equal"):
        Standardise().execute([1.0, 1.0])


def make_tracker(folder: Path) -> CsvTracker:
    return CsvTracker(TrackerSettings(name="csv"), TrackerContext(run=RunDirectory(folder)))


class TestCsvTracker(TrackerConformance):
    def create_tracker(self, folder: Path) -> CsvTracker:
        return make_tracker(folder)


def test_the_file_has_the_numbers(tmp_path: Path) -> None:
    for step in (1, 2):  # the second as if the run was resumed
        tracker = make_tracker(tmp_path)
        tracker.log({"step": step, "loss": 0.5, "note": "text", "mfu": None})
        tracker.close()
    assert (tmp_path / "metrics.csv").read_text().split() == ["step,name,value", "1,loss,0.5", "2,loss,0.5"]
