"""Write and read the whole state of a training run: all or nothing, on every rank alike."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

from torch import Tensor

from gnomon.errors import CheckpointError
from gnomon.launch.rank_errors import report_checkpoint
from gnomon.strategy.base import Strategy, Tensors
from gnomon.strategy.collectives import Collectives
from gnomon.train import checkpoint_files as files
from gnomon.train.agreement import on_main_rank
from gnomon.train.checkpoint_search import find_good
from gnomon.train.config import TrainingConfig
from gnomon.train.retention import Retention
from gnomon.units import format_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL = "the disk is full"


class Checkpointer:
    """Saves to and restores from one folder. Every method is called on every rank; none leaves a rank waiting.

    `identity` describes what may not change between the checkpoint and the run that continues it.
    """

    def __init__(self, directory: Path, strategy: Strategy, retention: Retention, identity: dict[str, Any]) -> None:
        self.directory = directory
        self._strategy = strategy
        self._retention = retention
        self._identity = identity
        self.last_saved: int | None = None
        self._distributed = strategy.environment.world_size > 1

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `step` and return its path; raise CheckpointError, with the previous one intact.

        `tensors` is a nested mapping of tensors, each name with the same shape on every rank that has it; `state` are
        JSON values of rank 0.
        """
        free = on_main_rank(self._strategy, lambda: self._make_room(step))
        path = self.write(step, tensors, state, free, self._strategy.collectives)
        self.last_saved = step
        return path

    def write(
        self, step: int, tensors: Tensors, state: dict[str, Any], free_bytes: int, collectives: Collectives
    ) -> Path:
        """Do what `save` does once there is room, talking to the other ranks through `collectives` alone."""
        final = files.checkpoint_path(self.directory, step)
        temporary = files.temporary_path(final)
        written, problem = self._write(tensors, temporary, collectives)
        reports = collectives.gather_objects((written, problem))
        problem = next((problem for _, problem in reports if problem is not None), None)
        is_main = self._strategy.environment.is_main
        if problem is None:
            listing = {name: item for written, _ in reports for name, item in written.items()}
            document = {"step": step, **state, "identity": self._identity, "files": listing}
            problem = collectives.broadcast_object(self._publish(temporary, final, document) if is_main else None)
        if problem is not None:
            if is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(self._explain(step, problem, _size(tensors), free_bytes))
        if is_main:
            report_checkpoint(step, final)
        return final

    def restore(self, tensors: Tensors) -> dict[str, Any] | None:
        """Fill `tensors` in place from the newest good checkpoint and return its state, or None if there is none.

        Names under "random", "metrics" and "statistics" may be missing in the checkpoint; they are then taken out of
        `tensors`.

        Raises CheckpointError when the run is another one, and when there are checkpoints but all are damaged.
        Damaged ones newer than the one that is loaded are named in a warning and renamed to `damaged-step-N`.
        """
        found = on_main_rank(self._strategy, lambda: find_good(self.directory, self._identity))
        if found is None:
            return None
        path, state = found
        self._read(tensors, path)
        return state

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        return next(iter(files.list_checkpoints(self.directory)), None)

    def path_of(self, step: int) -> Path:
        """Return where the checkpoint of `step` lies, or would."""
        return files.checkpoint_path(self.directory, step)

    def wait(self) -> None:
        """Wait until everything saved so far is on the disk; raise CheckpointError if it cannot be."""

    def close(self) -> None:
        """Let go of what saving needs; call it once, also after an error."""

    def _make_room(self, step: int) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        files.remove_unfinished(self.directory)
        files.temporary_path(files.checkpoint_path(self.directory, step)).mkdir()
        return shutil.disk_usage(self.directory).free

    def _write(
        self, tensors: Tensors, temporary: Path, collectives: Collectives
    ) -> tuple[dict[str, dict[str, int]], str | None]:
        """Return the fingerprints of the files of this rank, and what went wrong or None."""
        from gnomon.train.tensor_store import CheckpointException, save_tensors  # slow to import, not always needed

        environment = self._strategy.environment
        mine = [f"__{environment.rank}_*.distcp", *([".metadata"] if environment.is_main else [])]
        try:
            save_tensors(tensors, temporary, self._distributed, collectives.process_group)
            paths = [path for pattern in mine for path in temporary.glob(pattern)]
            return {path.name: files.fingerprint(path) for path in paths}, None
        except (CheckpointException, OSError, RuntimeError) as error:
            return {}, _reason(error)

    def _publish(self, temporary: Path, final: Path, document: dict[str, Any]) -> str | None:
        try:
            files.publish(temporary, final, document)
        except OSError as error:
            return _reason(error)
        self._retention.prune(self.directory, document)
        return None

    def _explain(self, step: int, problem: str, needed: int, free: int) -> str:
        if free < needed and not problem.startswith(_DISK_FULL):  # PyTorch's writer may hide the cause behind its own
            problem = f"{_DISK_FULL} ({problem})"
        previous = self.newest()
        kept = f"'{previous}' is intact; continue from it with resume=true" if previous else "There is no earlier one"
        return (
            f"The checkpoint of step {step} could not be written to '{self.directory}': {problem}. "
            f"It needs about {format_bytes(needed)}, and {format_bytes(free)} were free. "
            f"Free space there or choose another run_dir. {kept}."
        )

    def _read(self, tensors: Tensors, path: Path) -> None:
        from gnomon.train.tensor_store import CheckpointException, load_tensors, stored_names

        names = on_main_rank(self._strategy, lambda: stored_names(path))
        # with more ranks than the checkpoint has, or another kind of device, new generators stay as they are
        for optional in ("random", "metrics", "statistics"):
            tensors[optional] = _keep(tensors.get(optional, {}), names, f"{optional}.")
            if not tensors[optional]:
                del tensors[optional]
        try:
            load_tensors(tensors, path, self._distributed, self._strategy.collectives.process_group)
        except (CheckpointException, OSError, RuntimeError) as error:
            raise CheckpointError(f"'{path}' cannot be read: {_reason(error)}.") from error


def create_checkpointer(
    directory: Path, strategy: Strategy, config: TrainingConfig, identity: dict[str, Any]
) -> Checkpointer:
    """Return the checkpointer that the settings describe."""
    retention = Retention(newest=config.keep_checkpoints, every=config.keep_every)
    if not config.async_checkpoints:
        return Checkpointer(directory, strategy, retention, identity)
    from gnomon.train.async_checkpoint import AsyncCheckpointer  # slow to import, and not always needed

    return AsyncCheckpointer(directory, strategy, retention, identity)


def _keep(tensors: Tensors, names: set[str], prefix: str) -> Tensors:
    """Return the nested mapping with only the leaves whose dotted name is in `names`."""
    kept = {}
    for key, value in tensors.items():
        if isinstance(value, dict):
            value = _keep(value, names, f"{prefix}{key}.")
        elif f"{prefix}{key}" not in names:
            continue
        if not isinstance(value, dict) or value:
            kept[key] = value
    return kept


def _reason(error: BaseException) -> str:
    """Return the first cause in one line; a full disk is called that, however deep it is wrapped."""
    causes = [cause for cause, _ in getattr(error, "failures", {}).values()] or [error]
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return f"{_DISK_FULL} ({cause.strerror})"
    text = str(causes[0]).strip().splitlines()
    return f"{type(causes[0]).__name__}: {text[0]}" if text else type(causes[0]).__name__


def _size(tensors: dict[str, Any]) -> int:
    leaves = [leaf for value in tensors.values() for leaf in _leaves(value)]
    return sum(leaf.nbytes for leaf in leaves)


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [leaf for item in value.values() for leaf in _leaves(item)]
