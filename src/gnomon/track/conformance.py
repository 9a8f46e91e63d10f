"""What every tracker must do, as a test class: subclass it in your tests and say how to make your tracker."""

from __future__ import annotations

import copy
import struct
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gnomon.errors import ConfigError, TrackerWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.base import KINDS, Item, Kind, Tracker
from gnomon.track.collection import TrackerCollection, create_trackers
from gnomon.track.context import TrackerContext
from gnomon.track.registry import parse_trackers

TRAINING_ROW: dict[str, Any] = {
    "step": 1, "tokens": 256, "loss": 5.5, "lr": 1e-3, "grad_norm": 1.0, "step_time_s": 0.1, "tokens_per_s": 2560.0,
    "mfu": 0.4,
}  # fmt: skip
EVALUATION_ROW: dict[str, Any] = {"step": 1, "eval_loss": 5.4}
LONGEST_CALL_S = 0.1
LONGEST_CLOSE_S = 20.0


class TrackerConformance:
    """Tests for pytest, each with a new tracker."""

    def create_tracker(self, folder: Path) -> Tracker:
        """Return the tracker under test; it may write to `folder`."""
        raise NotImplementedError

    def create_unreachable_tracker(self, folder: Path) -> Tracker | None:
        """Return the tracker as a run has it (see `create_forwarded`), with a backend that does not answer.

        None, for a tracker that needs nobody.
        """
        return None

    def read_metrics(self, folder: Path) -> list[tuple[str, int, float]] | None:
        """Return (name, step, value) of every metric that the backend of the tracker in `folder` has now.

        None, for a tracker that keeps nothing.
        """
        return None

    def create_item(self, kind: Kind, folder: Path) -> Item:
        """Return an item of `kind` as the tracker is given it."""
        return create_item(kind, folder)

    def test_takes_every_kind_of_row(self, tmp_path: Path) -> None:
        """Training and evaluation rows, what is unknown (None), and keys that nobody has heard of."""
        tracker = self.create_tracker(tmp_path)
        unknown = dict.fromkeys(("tokens", "grad_norm", "tokens_per_s", "mfu"))
        odd = {"my_metric": 1.5, "loss (π), à la carte": 2.0, "words": "three", "nan": float("nan")}
        for row in (TRAINING_ROW, EVALUATION_ROW, {**TRAINING_ROW, "step": 2, **unknown, **odd}, {"step": 3, "a": 1}):
            tracker.log(row)
            tracker.flush()
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
        tracker.flush()
        tracker.close()
        tracker.close()

    def test_takes_the_kinds_that_it_declares(self, tmp_path: Path) -> None:
        """An item of each, with and without a slash in its name and a step."""
        tracker = self.create_tracker(tmp_path)
        for kind in sorted(tracker.kinds - {"metric"}):
            item = self.create_item(kind, tmp_path)
            tracker.record(item)
            tracker.record(Item(kind=kind, name=f"more/{item.name}", value=item.value, step=7))
        tracker.flush()
        tracker.close()

    def test_refuses_other_kinds_by_name(self, tmp_path: Path) -> None:
        """An unsupported kind is an error, and never silently left out."""
        tracker = self.create_tracker(tmp_path)
        for kind in [kind for kind in KINDS if kind not in tracker.kinds]:
            with pytest.raises(ConfigError, match=f"does not take items of kind '{kind}'. It takes: metric"):
                tracker.record(self.create_item(kind, tmp_path))
        with pytest.raises(ConfigError, match="does not take items of kind 'sound'"):
            tracker.record(Item(kind="sound", name="a", value=1))  # type: ignore[arg-type]
        tracker.close()

    def test_what_is_flushed_has_arrived(self, tmp_path: Path) -> None:
        """Every number of every row, at its step."""
        tracker = self.create_tracker(tmp_path)
        for step in range(1, 6):
            tracker.log({"step": step, "loss": 1 / step, "unknown": None})
        tracker.log({"step": 5, "eval_loss": 0.25})
        tracker.flush()
        found = self.read_metrics(tmp_path)
        tracker.close()
        if found is not None:
            expected = [("eval_loss", 5, 0.25), *(("loss", step, 1 / step) for step in range(1, 6))]
            assert [entry[:2] for entry in sorted(found)] == [entry[:2] for entry in expected]
            assert [entry[2] for entry in sorted(found)] == pytest.approx([entry[2] for entry in expected])

    def test_a_backend_that_does_not_answer_neither_stops_nor_delays_the_run(self, tmp_path: Path) -> None:
        """No call takes longer than a tenth of a second or raises, and the end is bounded."""
        tracker = self.create_unreachable_tracker(tmp_path)
        if tracker is None:
            return
        calls_s = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(1, 301):
                started_s = time.perf_counter()
                tracker.log({**TRAINING_ROW, "step": step})
                tracker.record(Item(kind="param", name=f"p{step}", value=step))
                calls_s.append(time.perf_counter() - started_s)
                time.sleep(0.005)
            started_s = time.perf_counter()
            tracker.close()
        assert time.perf_counter() - started_s < LONGEST_CLOSE_S
        # on a busy machine the loop itself is stopped now and then
        assert sorted(calls_s)[-3] < LONGEST_CALL_S
        troubles = [str(found.message) for found in caught if issubclass(found.category, TrackerWarning)]
        assert ["gnomon track sync" in text for text in troubles] == [True], troubles
        tracker.close()


def create_context(folder: Path, rank: int = 0, world_size: int = 1, memory: Any = None) -> TrackerContext:
    """Return the context of a run in `folder`, which is made if need be."""
    return TrackerContext(
        run=create_run(folder), rank=rank, world_size=world_size, uid=f"uid-{folder.name}", memory=memory or {}
    )


def create_run(folder: Path) -> RunDirectory:
    """Return the run directory `folder`/run, made if need be."""
    path = folder / "run"
    return RunDirectory.open(path) if path.exists() else RunDirectory.create(path, "seed: 1\n", {"versions": {}})


def create_forwarded(folder: Path, settings: Mapping[str, Any], rank: int = 0, ranks: int = 1) -> TrackerCollection:
    """Return the trackers of a run in `folder` with one of these settings, as a trainer has them."""
    environment = RankEnvironment(rank=rank, local_rank=rank, world_size=ranks, local_world_size=ranks)
    return create_trackers(parse_trackers(settings), create_run(folder), environment, num_steps=100)


def create_item(kind: Kind, folder: Path) -> Item:
    """Return an item of `kind` with its value as a tracker in a process of its own is given it."""
    values: dict[str, Any] = {
        "metric": 0.5, "param": 1e-3, "text": "some *text*", "dict": {"a": [1, 2]},
        "dataset": {"digest": "0123", "source": "generated", "samples": 3},
    }  # fmt: skip
    if kind in values:
        return Item(kind=kind, name=f"my_{kind}", value=values[kind], time_s=time.time(), step=1)
    path = folder / f"{kind}{'.png' if kind in ('figure', 'image') else '.pb' if kind == 'graph' else '.bin'}"
    path.write_bytes(_png() if path.suffix == ".png" else b"")
    return Item(kind=kind, name=f"my_{kind}", value=path, time_s=time.time())


def _png() -> bytes:
    """Return a grey picture of one pixel."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x7f")) + chunk(b"IEND", b"")
    )
