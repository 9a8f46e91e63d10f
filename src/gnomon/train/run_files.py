"""The run directory of a training run: made for a new one, opened for one that goes on."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gnomon.errors import RunDirectoryError
from gnomon.runtime.resolved import config_yaml
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import describe_environment
from gnomon.train.config import TrainingConfig

SETTINGS_FILE = "training.json"
LOCK_FILE = ".lock"


def open_run(config: TrainingConfig) -> tuple[RunDirectory, int]:
    """Return the run directory of `config` and an open file that locks it.

    A directory in which nothing was trained yet (a pipeline makes one in advance) is used as it is. Raises
    RunDirectoryError for one that has results, unless `resume` is set, and for one that another process trains in.
    """
    path = Path(config.run_dir)
    if path.exists():
        run = RunDirectory.open(path)
        if not config.resume and (run.metrics.exists() or run.checkpoints.exists()):
            raise RunDirectoryError(
                f"The run directory '{path}' holds a run already, and a run is never overwritten. "
                "Choose another run_dir, or continue this one with resume=true (in a pipeline training.resume=true)."
            )
    else:
        run = RunDirectory.create(path, config_yaml(config.to_yaml()), describe_environment())
    return run, _lock(run)


def refuse_locked(run: RunDirectory) -> None:
    """Raise RunDirectoryError when another process trains in the run directory at this moment."""
    if (run.path / LOCK_FILE).exists():
        os.close(_lock(run))


def write_settings(run: RunDirectory, config: TrainingConfig) -> Path:
    """Write training.json; only once it is certain that these settings belong to the run. Return its path."""
    return run.write_text(SETTINGS_FILE, config.to_json() + "\n")


def _lock(run: RunDirectory) -> int:
    """Return an open file that keeps other trainers out until it is closed, be it by a kill of this process."""
    descriptor = os.open(run.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if sys.platform == "win32":
        return descriptor
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise RunDirectoryError(
            f"Another process is training in '{run.path}'. Wait for it or stop it, then resume."
        ) from None
    except OSError:
        pass  # some network file systems know no locks; then everybody is let in
    return descriptor


def drop_later_rows(run: RunDirectory, step: int) -> None:
    """Drop the rows of metrics.jsonl after `step`, which a resumed run is about to write again."""
    if run.metrics.exists():
        run.keep_metrics(row for row in run.read_metrics() if row["step"] <= step)
