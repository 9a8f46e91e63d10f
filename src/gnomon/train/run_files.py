"""The run directory of a training run: made for a new one, opened for one that goes on."""

from __future__ import annotations

from pathlib import Path

from gnomon.errors import RunDirectoryError
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import describe_environment
from gnomon.train.config import TrainingConfig

SETTINGS_FILE = "training.json"


def open_run(config: TrainingConfig) -> RunDirectory:
    """Return the run directory of `config` with its settings in training.json.

    A directory in which nothing was trained yet (a pipeline makes one in advance) is used as it is. Raises
    RunDirectoryError for one that has results, unless `resume` is set.
    """
    path = Path(config.run_dir)
    if path.exists():
        run = RunDirectory.open(path)
        if not config.resume and (run.metrics.exists() or run.checkpoints.exists()):
            raise RunDirectoryError(
                f"The run directory '{path}' holds a run already, and a run is never overwritten. "
                "Choose another run_dir, or continue this one with resume=true."
            )
    else:
        run = RunDirectory.create(path, config.to_yaml(), describe_environment())
    run.write_text(SETTINGS_FILE, config.to_json() + "\n")
    return run


def drop_later_rows(run: RunDirectory, step: int) -> None:
    """Drop the rows of metrics.jsonl after `step`, which a resumed run is about to write again."""
    rows = run.read_metrics()
    kept = [row for row in rows if row["step"] <= step]
    if kept != rows or run.metrics.exists():
        run.keep_metrics(kept)
