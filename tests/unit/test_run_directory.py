"""The run directory: made once, never overwritten, read back even after a crash."""

import json
from pathlib import Path

import pytest

from gnomon.errors import RunDirectoryError
from gnomon.runtime.run_directory import SCHEMA_VERSION, RunDirectory


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "a", "seed: 1\n", {"python": "3.11"})


def test_a_new_run_holds_its_config_and_environment(run: RunDirectory) -> None:
    assert run.config.read_text() == "seed: 1\n"
    assert json.loads(run.environment.read_text()) == {"schema_version": SCHEMA_VERSION, "python": "3.11"}
    assert [path.name for path in run.path.parent.iterdir()] == ["a"]
    assert RunDirectory.open(run.path).path == run.path


def test_a_run_is_never_overwritten(run: RunDirectory) -> None:
    with pytest.raises(RunDirectoryError, match=r"exists already.*resume=true"):
        RunDirectory.create(run.path, "seed: 2\n", {})
    assert run.config.read_text() == "seed: 1\n"


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is not a folder but a file"):
        RunDirectory.create(tmp_path / "file", "", {})


def test_what_is_not_a_run_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"has no env.json"):
        RunDirectory.open(tmp_path)
    run.environment.write_bytes(b"\xff\xfe")
    with pytest.raises(RunDirectoryError, match="damaged"):
        RunDirectory.open(run.path)
    run.environment.write_text("[]")
    with pytest.raises(RunDirectoryError, match="damaged"):
        RunDirectory.open(run.path)
    run.environment.write_text('{"schema_version": 99}')
    with pytest.raises(RunDirectoryError, match="schema version 99"):
        RunDirectory.open(run.path)


def test_metrics_survive_a_line_cut_off_by_a_crash(run: RunDirectory) -> None:
    assert run.read_metrics() == []
    for cut in ('{"ste', '{"ste\n', "null\n"):
        run.metrics.write_text('{"step": 1}\n{"step": 2}\n' + cut)
        assert [row["step"] for row in run.read_metrics()] == [1, 2]
    run.keep_metrics(row for row in run.read_metrics() if row["step"] < 2)
    assert run.metrics.read_text() == '{"step": 1}\n'


def test_damaged_metrics_are_not_read_over(run: RunDirectory) -> None:
    run.metrics.write_text('{"step": 1}\noops\n{"step": 3}\n')
    with pytest.raises(RunDirectoryError, match="line 2 is not a JSON mapping"):
        run.read_metrics()
