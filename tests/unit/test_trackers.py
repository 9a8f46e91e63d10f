"""Trackers: every row arrives, and no trouble of theirs stops a run."""

import errno
import io
import json
import os
import time
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from gnomon.errors import TrackerWarning
from gnomon.track.console import ConsoleTracker, format_row, format_summary
from gnomon.track.jsonl import JsonlTracker

ROW = {"step": 10, "tokens": 640, "loss": 2.5, "lr": 1e-3, "grad_norm": 1.0, "step_time_s": 0.125,
       "tokens_per_s": 5120.0, "mfu": 0.41}  # fmt: skip


def read(path: Path) -> list[dict]:
    """Return the rows without the time at which they were written."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "time_s"} for row in rows]


def test_each_row_says_when_it_was_written(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    before = time.time()
    tracker.log({"step": 1})
    row = json.loads((tmp_path / "metrics.jsonl").read_text(encoding="utf-8"))
    assert before - 0.001 <= row["time_s"] <= time.time() + 0.001


def test_each_row_is_in_the_file_at_once_and_appended_to_what_is_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n', encoding="utf-8")
    tracker = JsonlTracker(path)
    tracker.log({"step": 2, "loss": 0.1})
    assert read(path) == [{"step": 1}, {"step": 2, "loss": 0.1}]
    tracker.close()
    tracker.close()


def test_floats_survive_to_the_last_bit(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    value = 0.1 + 0.2
    tracker.log({"loss": value})
    assert read(tmp_path / "metrics.jsonl")[0]["loss"] == value


def test_a_full_disk_warns_once_and_the_rows_are_written_when_there_is_room_again(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path)
    tracker.log({"step": 1})
    write = os.write
    # half of the row fits on the disk
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
    with pytest.warns(TrackerWarning, match="No space left on device. Training goes on"):
        tracker.log({"step": 2})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tracker.log({"step": 3})
    assert read(path) == [{"step": 1}]
    monkeypatch.undo()
    tracker.log({"step": 4})
    assert read(path) == [{"step": step} for step in (1, 2, 3, 4)]


def test_thousands_of_rows_that_wait_for_room_do_not_slow_the_loop(tmp_path, monkeypatch):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    write, written = os.write, []

    def full(file: int, data: bytes) -> int:
        written.append(len(data))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.warns(TrackerWarning):
        tracker.log({"step": 0})
    for step in range(1, 5000):
        tracker.log({"step": step})
    assert len(written) == 5000
    assert max(written) < 10_000  # bytes that one call tries
    monkeypatch.setattr(os, "write", write)
    tracker.close()
    assert read(tmp_path / "metrics.jsonl") == [{"step": step} for step in range(5000)]


def test_rows_that_never_found_room_are_printed(tmp_path, monkeypatch, capsys):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")

    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.warns(TrackerWarning):
        tracker.log({"step": 1})
    tracker.close()
    monkeypatch.undo()
    assert '{"step": 1, ' in capsys.readouterr().err


def test_the_line_of_a_row():
    assert format_row(ROW, 100) == ("step  10/100  loss 2.5000  125 ms/step  5.12 K tokens/s  MFU 41.0%  ETA 11.2 s")
    row = {**ROW, "mfu": None}
    assert format_row(row, 10, 2.75) == (
        "step 10/10  loss 2.5000  eval 2.7500  125 ms/step  5.12 K tokens/s  MFU unknown  ETA 0 s"
    )
    row = {**row, "tokens_per_s": None, "samples_per_s": 256.0}
    assert format_row(row, 10) == "step 10/10  loss 2.5000  125 ms/step  256 samples/s  ETA 0 s"
    summary = {"step": 10, "test_loss": 0.25, "test_accuracy": 0.975, "time_s": 1.0}
    assert format_summary(summary, 100) == "step  10/100  test loss 0.2500  test accuracy 0.9750"


def test_without_a_terminal_a_line_is_printed_about_every_tenth_of_the_run():
    out = io.StringIO()
    tracker = ConsoleTracker(95, Console(file=out, width=200))
    for step in range(1, 96):
        tracker.log({**ROW, "step": step})
    tracker.close()
    steps = [int(line.split()[1].split("/")[0]) for line in out.getvalue().splitlines()]
    assert steps == [1, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 95]


def test_on_a_terminal_one_line_is_rewritten():
    out = io.StringIO()
    tracker = ConsoleTracker(20, Console(file=out, width=120, force_terminal=True))
    tracker.log({"step": 1, "eval_loss": 3.0})
    for step in (1, 2):
        tracker.log({**ROW, "step": step})
    tracker.close()
    tracker.close()
    text = out.getvalue()
    assert "eval 3.0000" in text
    assert "\x1b[2K" in text
    assert text.count("\n") <= 2
