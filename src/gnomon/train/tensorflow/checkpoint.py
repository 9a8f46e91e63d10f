"""The whole state of a training run, in the checkpoint format of TensorFlow, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from gnomon.errors import CheckpointError, RunDirectoryError
from gnomon.train import checkpoint_files as files
from gnomon.train.checkpoint_search import find_good
from gnomon.train.outcomes import attempt
from gnomon.train.retention import Retention
from gnomon.train.tensorflow.distribution import Distribution
from gnomon.train.tensorflow.library import tensorflow

T = TypeVar("T")
_VARIABLES = "variables"


class KerasCheckpointer:
    """Saves model and optimizer to one folder and restores them. Every method is called by every process.

    The main process writes; all of them read, so that the folder must be one that all can see.
    """

    def __init__(
        self,
        directory: Path,
        distribution: Distribution,
        retention: Retention,
        identity: dict[str, Any],
        model: Any,
        optimizer: Any,
    ) -> None:
        self.directory = directory
        self._distribution = distribution
        self._retention = retention
        self._identity = identity
        # the list of variables has the states of random layers, which a checkpoint of the model as such leaves out
        parts = {"model": model, "optimizer": optimizer}
        variables = {name: [each.value for each in part.variables] for name, part in parts.items()}
        self._checkpoint = tensorflow().train.Checkpoint(**variables)
        self.last_saved: int | None = None

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `step` and return its path; raise CheckpointError, with the previous one intact."""
        final = files.checkpoint_path(self.directory, step)
        problem: str | None = None
        if self._distribution.cluster.is_main:
            problem = self._save(final, {"step": step, **state, "identity": self._identity})
        else:  # reading the variables of a strategy may need all workers, so that TensorFlow wants each to write
            with tempfile.TemporaryDirectory() as folder:
                self._checkpoint.write(str(Path(folder, _VARIABLES)))
        if self._distribution.sum(float(problem is not None)):
            previous = self.newest()
            kept = f"'{previous}' is intact; continue from it" if previous else "There is no earlier one"
            raise CheckpointError(
                f"The checkpoint of step {step} could not be written to '{self.directory}': "
                f"{problem or 'the main process says why'}. Free space there or choose another run_dir. {kept}."
            )
        self.last_saved = step
        return final

    def restore(self) -> dict[str, Any] | None:
        """Load the newest good checkpoint and return its state, or None if there is none; raise CheckpointError."""
        found = on_main(self._distribution, lambda: find_good(self.directory, self._identity))
        step = self._distribution.sum(float(found[1]["step"]) if found else 0.0)
        if not step:
            return None
        path = files.checkpoint_path(self.directory, int(step))
        state = files.read_state(path)
        try:
            self._checkpoint.read(str(path / _VARIABLES)).assert_consumed()
        except (AssertionError, ValueError, tensorflow().errors.OpError) as error:
            raise CheckpointError(
                f"'{path}' does not fit the model and its optimizer: {str(error).splitlines()[0]} "
                "Set them back, or train in another run_dir."
            ) from None
        return state

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        return next(iter(files.list_checkpoints(self.directory)), None)

    def _save(self, final: Path, document: dict[str, Any]) -> str | None:
        """Write and publish; return what went wrong, or None."""
        temporary = files.temporary_path(final)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            files.remove_unfinished(self.directory)
            temporary.mkdir()
            self._checkpoint.write(str(temporary / _VARIABLES))
            written = sorted(path for path in temporary.iterdir() if path.is_file())
            for path in written:
                _force_to_disk(path)
            listing = {path.name: files.fingerprint(path) for path in written}
            files.publish(temporary, final, {**document, "files": listing})
        except (OSError, tensorflow().errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            text = getattr(error, "strerror", None) or str(error).splitlines()[0]
            return f"{type(error).__name__}: {text}"
        self._retention.prune(self.directory, document)
        return None


def on_main(distribution: Distribution, work: Callable[[], T]) -> T | None:
    """Do `work` on the main process and return its result there, None elsewhere; if it fails, all processes fail."""
    result, error = attempt(work) if distribution.cluster.is_main else (None, None)
    if distribution.sum(float(error is not None)):
        raise error or RunDirectoryError("The main process cannot use the run directory; its message says why.")
    return result


def _force_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
