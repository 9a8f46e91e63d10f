"""Write and read the whole state of a training run: all or nothing, on every rank alike."""

from __future__ import annotations

import errno
import shutil
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gnomon.errors import CheckpointError, CheckpointWarning
from gnomon.runtime.seeds import rng_state, set_rng_state
from gnomon.strategy.base import Strategy
from gnomon.train import checkpoint_files as files
from gnomon.train.agreement import on_main_rank
from gnomon.units import format_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_DISK_FULL = "the disk is full"
_MAX_DIFFERENCES = 5


class Checkpointer:
    """Saves to and restores from one folder. Every method is called on every rank; none leaves a rank waiting.

    `identity` describes what may not change between the checkpoint and the run that continues it.
    """

    def __init__(self, directory: Path, strategy: Strategy, keep: int, identity: dict[str, Any]) -> None:
        self.directory = directory
        self._strategy = strategy
        self._keep = keep
        self._identity = identity
        self.last_saved: int | None = None
        self._distributed = strategy.environment.world_size > 1

    def save(self, step: int, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]) -> Path:
        """Write the checkpoint of `step` and return its path; raise CheckpointError, with the previous one intact."""
        final = files.checkpoint_path(self.directory, step)
        temporary = files.temporary_path(final)
        free = on_main_rank(self._strategy, lambda: self._make_room(temporary))
        tensors = self._state(model, optimizer)
        written, problem = self._write(tensors, temporary)
        reports = self._strategy.collectives.gather_objects((written, problem))
        problem = next((problem for _, problem in reports if problem is not None), None)
        if problem is None:
            listing = {name: item for written, _ in reports for name, item in written.items()}
            document = {"step": step, **state, "identity": self._identity, "files": listing}
            problem = on_main_rank(self._strategy, lambda: self._publish(temporary, final, document))
        if problem is not None:
            if self._strategy.environment.is_main:
                shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(self._explain(step, problem, _size(tensors), free))
        self.last_saved = step
        return final

    def restore(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any] | None:
        """Load the newest good checkpoint and return its state, or None if there is none.

        Raises CheckpointError when the run is another one, and when there are checkpoints but all are damaged.
        Damaged ones newer than the one that is loaded are named in a warning and renamed to `damaged-step-N`.
        """
        found = on_main_rank(self._strategy, self._find)
        if found is None:
            return None
        path, state = found
        tensors = self._state(model, optimizer)
        self._read(tensors, path)
        self._strategy.load_state(model, optimizer, tensors)
        return state

    def newest(self) -> Path | None:
        """Return the newest complete checkpoint, or None."""
        return next(iter(files.list_checkpoints(self.directory)), None)

    def _make_room(self, temporary: Path) -> int:
        self.directory.mkdir(parents=True, exist_ok=True)
        files.remove_unfinished(self.directory)
        temporary.mkdir()
        return shutil.disk_usage(self.directory).free

    def _state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        rank = str(self._strategy.environment.rank)
        return {**self._strategy.state(model, optimizer), "random": {rank: rng_state()}}

    def _write(self, tensors: dict[str, Any], temporary: Path) -> tuple[dict[str, dict[str, int]], str | None]:
        """Return the fingerprints of the files of this rank, and what went wrong or None."""
        from gnomon.train.tensor_store import CheckpointException, save_tensors

        environment = self._strategy.environment
        mine = [f"__{environment.rank}_*.distcp", *([".metadata"] if environment.is_main else [])]
        try:
            save_tensors(tensors, temporary, self._distributed)
            paths = [path for pattern in mine for path in temporary.glob(pattern)]
            return {path.name: files.fingerprint(path) for path in paths}, None
        except (CheckpointException, OSError, RuntimeError) as error:
            return {}, _reason(error)

    def _publish(self, temporary: Path, final: Path, document: dict[str, Any]) -> str | None:
        try:
            files.publish(temporary, final, document)
        except OSError as error:
            return _reason(error)
        files.prune(self.directory, self._keep)
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

    def _find(self) -> tuple[Path, dict[str, Any]] | None:
        damaged: list[tuple[Path, CheckpointError]] = []
        for path in files.list_checkpoints(self.directory):
            try:
                state = files.read_state(path)
            except CheckpointError as error:
                damaged.append((path, error))
                continue
            self._refuse_other_run(path, state)
            for bad, reason in damaged:
                warnings.warn(
                    f"{reason} It was renamed to '{files.set_aside(bad).name}'; the run continues from '{path}'.",
                    CheckpointWarning,
                    stacklevel=2,
                )
            return path, state
        if damaged:
            raise CheckpointError(
                f"No checkpoint in '{self.directory}' can be read. {damaged[0][1]} "
                "Put a good one there, or start anew in another run_dir."
            )
        return None

    def _refuse_other_run(self, path: Path, state: dict[str, Any]) -> None:
        saved, now = _flatten(state.get("identity", {})), _flatten(self._identity)
        differing = [
            f"{key} was {saved.get(key)!r} and is {now.get(key)!r}"
            for key in sorted({*saved, *now})
            if saved.get(key) != now.get(key)
        ]
        if differing:
            more = len(differing) - _MAX_DIFFERENCES
            listed = "; ".join(differing[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
            raise CheckpointError(
                f"'{path}' belongs to another run: {listed}. Set them back, or train in another run_dir."
            )

    def _read(self, tensors: dict[str, Any], path: Path) -> None:
        from gnomon.train.tensor_store import CheckpointException, load_tensors, stored_names

        rank = str(self._strategy.environment.rank)
        names = on_main_rank(self._strategy, lambda: stored_names(path))
        # with more ranks than the checkpoint has, or another kind of device, the new generators stay as seeded
        generators = {k: v for k, v in tensors.pop("random")[rank].items() if f"random.{rank}.{k}" in names}
        if generators:
            tensors["random"] = {rank: generators}
        try:
            load_tensors(tensors, path, self._distributed)
        except (CheckpointException, OSError, RuntimeError) as error:
            raise CheckpointError(f"'{path}' cannot be read: {_reason(error)}.") from error
        set_rng_state({**rng_state(), **generators})


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


def _flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
