"""The run directory that the steps of a pipeline share."""

from __future__ import annotations

from pathlib import Path

from gnomon.errors import RunDirectoryError
from gnomon.runtime.resolved import config_yaml
from gnomon.runtime.run_directory import RunDirectory, already_taken
from gnomon.runtime.versions import describe_environment


def create_run(run_dir: str | Path, own_settings: str) -> RunDirectory:
    """Make the run directory with the resolved configuration, or `own_settings` for a step that is used alone."""
    return RunDirectory.create(run_dir, config_yaml(own_settings), describe_environment())


def refuse_taken(run_dir: str | Path) -> None:
    """Raise RunDirectoryError when the run directory exists already."""
    if Path(run_dir).exists():
        raise already_taken(Path(run_dir))


def open_run(run_dir: str | Path, step: str) -> RunDirectory:
    """Return the run directory; raise RunDirectoryError that says what the step needs it for."""
    if not Path(run_dir).exists():
        raise RunDirectoryError(
            f"Step {step} reads the run directory '{run_dir}', which does not exist. "
            "Start with the first step of the pipeline, or set run_dir to the folder of an earlier run."
        )
    return RunDirectory.open(run_dir)


def require(path: Path, step: str) -> Path:
    """Return a file of the run that a step reads; raise RunDirectoryError when an earlier step did not write it."""
    if not path.is_file():
        raise RunDirectoryError(f"Step {step} needs '{path}', which is not there. Run the steps before it first.")
    return path


def refuse_existing(path: Path, step: str) -> Path:
    """Return a file of the run that a step is about to write; raise RunDirectoryError when it exists."""
    if path.exists():
        raise RunDirectoryError(
            f"Step {step} would overwrite '{path}', and a run is never overwritten. "
            "Choose another run_dir, or start at a later step with --steps."
        )
    return path
