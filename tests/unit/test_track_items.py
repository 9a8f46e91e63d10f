"""Items are kept in the run directory as they are at that moment, and wrong values are refused."""

import errno
import json

import matplotlib.figure
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from gnomon.errors import ConfigError, TrackerWarning
from gnomon.track.base import Item
from gnomon.track.conformance import create_run
from gnomon.track.jsonl import JsonlTracker


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path)


def record(run, **values) -> dict:
    tracker = JsonlTracker(run.metrics)
    tracker.record(Item(**{"name": "a/b c", **values}))
    tracker.close()
    return json.loads((run.path / "tracking/rank-0/items.jsonl").read_text().splitlines()[-1])


def test_values_that_are_json_are_kept_as_they_are(run):
    assert record(run, kind="text", value="π", step=3)["value"] == "π"
    assert record(run, kind="dict", value={"a": [1, None]})["value"] == {"a": [1, None]}
    assert record(run, kind="param", value=np.float64(0.5))["value"] == 0.5
    assert record(run, kind="param", value=torch.tensor(3))["value"] == 3
    line = record(run, kind="dataset", value={"source": "generated"})
    assert line["value"]["source"] == "generated"
    assert len(line["value"]["digest"]) == 64


def test_nested_parameters_get_dotted_names(run):
    record(run, kind="param", name="model", value={"width": 8, "head": {"bias": True}})
    lines = [json.loads(line) for line in (run.path / "tracking/rank-0/items.jsonl").read_text().splitlines()]
    assert {line["name"]: line["value"] for line in lines} == {"model.width": 8, "model.head.bias": True}


def test_a_metric_becomes_a_row_and_needs_a_step(run):
    tracker = JsonlTracker(run.metrics)
    tracker.record(Item(kind="metric", name="auc", value=0.5, step=3))
    with pytest.raises(ConfigError, match="The metric 'auc' has no step"):
        tracker.record(Item(kind="metric", name="auc", value=0.5))
    tracker.close()
    (row,) = run.read_metrics()
    assert (row["step"], row["auc"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([[0.0, 1.0]]), [[0, 255]]),
        (np.array([[[1, 2, 3]]], np.uint8), [[[1, 2, 3]]]),
        (torch.tensor([[[1.0]], [[0.0]], [[1.0]]]), [[[255, 0, 255]]]),
        (torch.zeros(1, 1, 2), [[0, 0]]),
        (Image.new("L", (1, 1), 7), [[7]]),
    ],
)
def test_images_of_numpy_pytorch_and_pillow(run, value, expected):
    line = record(run, kind="image", value=value)
    assert np.asarray(Image.open(run.path / line["path"])).tolist() == expected


def test_a_figure_is_drawn_and_weights_are_saved_at_once(run):
    figure = matplotlib.figure.Figure()
    figure.subplots().plot([1, 2])
    assert Image.open(run.path / record(run, kind="figure", value=figure)["path"]).size == (640, 480)
    module = nn.Linear(1, 1)
    before = module.weight.item()
    path = run.path / record(run, kind="model", value=module)["path"]
    nn.init.constant_(module.weight, 9.0)
    assert torch.load(path, weights_only=True)["weight"].item() == before


def test_artifacts_in_the_run_directory_stay_and_others_are_copied(run, tmp_path):
    assert record(run, kind="artifact", value=run.config)["path"] == "config.yaml"
    outside = tmp_path / "folder"
    outside.mkdir()
    (outside / "file").write_text("x")
    line = record(run, kind="artifact", value=str(outside))
    (outside / "file").unlink()
    assert (run.path / line["path"] / "file").read_text() == "x"
    digest = record(run, kind="dataset", value=run.config)["value"]
    assert digest["size_bytes"] == run.config.stat().st_size


def test_the_graph_of_a_module_is_traced_without_tensorflow(run):
    import sys

    before = "tensorflow" in sys.modules  # imported by another test of this process
    line = record(run, kind="graph", value=(nn.Linear(2, 1), torch.zeros(1, 2)))
    assert (run.path / line["path"]).stat().st_size > 100
    assert ("tensorflow" in sys.modules) == before


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("text", 3, "must be a string; found 3"),
        ("dict", "a", "must be a mapping; found 'a'"),
        ("dict", {"a": object()}, "which is not JSON"),
        ("param", object(), "value of type object, which is not JSON"),
        ("param", np.zeros(3), "which is not JSON"),
        ("figure", "a", "must be a Matplotlib figure"),
        ("image", np.zeros(3), r"found ndarray of shape \(3,\)"),
        ("image", np.full((2, 2), 7.0), "numbers from 0 to 1"),
        ("image", np.zeros((2, 2, 5)), "1, 3 or 4 channels"),
        ("artifact", "nowhere", "the path of a file or folder that exists; found 'nowhere'"),
        ("model", 3, "the path of a file or folder that exists"),
        ("dataset", 3, "a mapping that describes the data"),
        ("graph", 3, "must be a pair"),
        ("sound", 3, "does not take items of kind 'sound'"),
    ],
)
def test_a_value_that_is_not_of_its_kind_is_refused(run, kind, value, message):
    with pytest.raises(ConfigError, match=message):
        record(run, kind=kind, value=value)


def test_a_resumed_run_does_not_keep_an_item_of_the_same_step_twice(run):
    for _ in range(2):
        record(run, kind="text", value="once", step=3)
        record(run, kind="param", value=1)
    lines = (run.path / "tracking/rank-0/items.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["text", "param", "param"]


def test_a_full_disk_loses_the_file_with_a_warning_and_the_run_goes_on(run, monkeypatch):
    tracker = JsonlTracker(run.metrics)

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.warns(TrackerWarning, match=r"The image 'a' cannot be written to .* and is lost: No space left"):
        tracker.record(Item(kind="image", name="a", value=np.zeros((2, 2))))
    tracker.log({"step": 1})
    tracker.close()
    assert run.read_metrics()[0]["step"] == 1
