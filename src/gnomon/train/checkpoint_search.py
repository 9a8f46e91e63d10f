"""Which checkpoint a run continues from: the newest whose files are as they were written, and only its own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from gnomon.errors import CheckpointError, CheckpointWarning
from gnomon.train import checkpoint_files as files

_MAX_DIFFERENCES = 5


def find_good(directory: Path, identity: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest good checkpoint and its state, or None if there is none.

    Raises CheckpointError when it belongs to a run of another `identity`, and when there are checkpoints but all are
    damaged. Damaged ones newer than the one returned are named in a warning and renamed to `damaged-step-N`.
    """
    damaged: list[tuple[Path, CheckpointError]] = []
    for path in files.list_checkpoints(directory):
        try:
            state = files.read_state(path)
        except CheckpointError as error:
            damaged.append((path, error))
            continue
        _refuse_other_run(path, state, identity)
        for bad, reason in damaged:
            warnings.warn(
                f"{reason} It was renamed to '{files.set_aside(bad).name}'; the run continues from '{path}'.",
                CheckpointWarning,
                stacklevel=2,
            )
        return path, state
    if damaged:
        raise CheckpointError(
            f"No checkpoint in '{directory}' can be read. {damaged[0][1]} "
            "Put a good one there, or start anew in another run_dir."
        )
    return None


def _refuse_other_run(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    saved, now = _flatten(state.get("identity", {})), _flatten(identity)
    differing = [
        f"{key} was {saved.get(key)!r} and is {now.get(key)!r}"
        for key in sorted({*saved, *now})
        if saved.get(key) != now.get(key)
    ]
    if differing:
        more = len(differing) - _MAX_DIFFERENCES
        listed = "; ".join(differing[:_MAX_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
        raise CheckpointError(f"'{path}' belongs to another run: {listed}. Set them back, or train in another run_dir.")


def _flatten(mapping: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
