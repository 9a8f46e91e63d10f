"""The run directory that the steps of a pipeline share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gnomon.errors import RunDirectoryError
from gnomon.runtime.run_directory import RunDirectory, already_taken
from gnomon.runtime.versions import describe_environment

_resolved: ContextVar[str | None] = ContextVar("resolved_config", default=None)


@contextmanager
def resolved_config(text: str) -> Iterator[None]:
    """Make `text` the configuration that `create_run` saves, for the steps that run inside."""
    token = _resolved.set(text)
    try:
        yield
    finally:
        _resolved.reset(token)


def create_run(run_dir: str | Path, own_settings: str) -> RunDirectory:
    """Make the run directory with the resolved configuration, or `own_settings` for a step that is used alone."""
    text = _resolved.get()
    return RunDirectory.create(run_dir, own_settings if text is None else text, describe_environment())


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
