"""Checkpoints as files: complete ones have a plain name, everything unfinished has a name that starts with a dot."""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

from gnomon.errors import CheckpointError

SCHEMA_VERSION = 1
STATE_FILE = "state.json"
_COMPLETE = re.compile(r"step-(\d{6,})")
_CHUNK_BYTES = 2**20


def checkpoint_path(directory: Path, step: int) -> Path:
    """Return where the complete checkpoint of `step` lies."""
    return directory / f"step-{step:06d}"


def temporary_path(final: Path) -> Path:
    """Return where a checkpoint is written before it is complete, or moved before it is deleted."""
    return final.with_name(f".{final.name}.tmp")


def list_checkpoints(directory: Path) -> list[Path]:
    """Return the complete checkpoints, newest first."""
    if not directory.is_dir():
        return []
    found = [(match, path) for path in directory.iterdir() if (match := _COMPLETE.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: int(pair[0][1]), reverse=True)]


def remove_unfinished(directory: Path) -> None:
    """Delete what a killed run left half written or half deleted."""
    for path in directory.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def publish(temporary: Path, final: Path, state: dict[str, Any]) -> None:
    """Write the state file, force all to the disk and give the checkpoint its final name; raise OSError."""
    with (temporary / STATE_FILE).open("w", encoding="utf-8") as file:
        json.dump({"schema_version": SCHEMA_VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(temporary)
    temporary.rename(final)
    _sync_folder(final.parent)


def step_of(path: Path) -> int:
    """Return the step of a complete checkpoint."""
    return int(path.name.removeprefix("step-"))


def delete(path: Path) -> None:
    """Delete a complete checkpoint; a kill in between leaves nothing that looks complete."""
    leaving = temporary_path(path)
    path.rename(leaving)
    shutil.rmtree(leaving, ignore_errors=True)


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint so that nothing takes it for a good one; return the new path."""
    aside = path.with_name(f"damaged-{path.name}")
    if aside.exists():
        shutil.rmtree(aside, ignore_errors=True)
    return path.rename(aside)


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint whose files are as they were written; raise CheckpointError otherwise."""
    try:
        state = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
        version, files = state["schema_version"], state["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{path}' is damaged: {STATE_FILE} is missing or malformed ({error}).") from None
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"'{path}' has schema version {version}; this gnomon reads version {SCHEMA_VERSION}.")
    for name, written in files.items():
        try:
            found = fingerprint(path / name)
        except OSError as error:
            raise CheckpointError(f"'{path}' is damaged: {name} cannot be read ({error.strerror}).") from None
        if found != written:
            raise CheckpointError(f"'{path}' is damaged: {name} has {found}, but {written} was written.")
    return state


def fingerprint(path: Path) -> dict[str, int]:
    """Return the size and the CRC-32 of a file."""
    checksum = size = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return {"bytes": size, "crc32": checksum}


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
