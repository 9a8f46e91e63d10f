"""The run directory: the only contract on disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gnomon.errors import RunDirectoryError
from gnomon.spec._noun import write_atomically

SCHEMA_VERSION = 1


class RunDirectory:
    """The files of one run: config.yaml, env.json, metrics.jsonl, estimate.json, measurement.json, and so on."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    config = property(lambda self: self.path / "config.yaml")
    environment = property(lambda self: self.path / "env.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    hardware = property(lambda self: self.path / "hardware.yaml")
    estimate = property(lambda self: self.path / "estimate.json")
    measurement = property(lambda self: self.path / "measurement.json")
    comparison = property(lambda self: self.path / "comparison.json")
    checkpoints = property(lambda self: self.path / "checkpoints")
    traces = property(lambda self: self.path / "traces")
    logs = property(lambda self: self.path / "logs")
    report_html = property(lambda self: self.path / "report.html")
    report_markdown = property(lambda self: self.path / "report.md")

    @classmethod
    def create(cls, path: str | Path, config_yaml: str, environment: dict[str, Any]) -> RunDirectory:
        """Make a new run directory under a temporary name and rename it; raise RunDirectoryError if it exists."""
        final = Path(path)
        if final.exists():
            raise already_taken(final)
        temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
        try:
            temporary.mkdir(parents=True)
            (temporary / "config.yaml").write_text(config_yaml, encoding="utf-8")
            document = {"schema_version": SCHEMA_VERSION, **environment}
            (temporary / "env.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
            temporary.rename(final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise RunDirectoryError(f"The run directory '{final}' cannot be made: {error.strerror}.") from None
        return cls(final)

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Return an existing run directory; raise RunDirectoryError when it is missing or of another schema."""
        run = cls(path)
        if not run.environment.is_file():
            raise RunDirectoryError(
                f"'{path}' is not a run directory: it has no env.json. Give the folder that a gnomon run wrote."
            )
        try:
            version = json.loads(run.environment.read_text(encoding="utf-8")).get("schema_version")
        except (ValueError, AttributeError):  # not text, not JSON, or not a mapping
            raise RunDirectoryError(f"'{run.environment}' is damaged: it is not a JSON mapping.") from None
        if version != SCHEMA_VERSION:
            raise RunDirectoryError(
                f"'{path}' has schema version {version}; this gnomon reads version {SCHEMA_VERSION}."
            )
        return run

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl in order; a last line cut off by a crash is left out."""
        return list(_complete_rows(self.metrics)) if self.metrics.is_file() else []

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run atomically; return its path."""
        return write_atomically(self.path / name, text)

    def keep_metrics(self, rows: Iterable[dict[str, Any]]) -> None:
        """Replace metrics.jsonl by `rows`, atomically (a resumed run drops the rows it is about to repeat)."""
        self.write_text("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def already_taken(path: Path) -> RunDirectoryError:
    """Return the error for a run directory that may not be made because something is there."""
    if not path.is_dir():
        return RunDirectoryError(f"run_dir='{path}' is not a folder but a file. Choose another run_dir.")
    return RunDirectoryError(
        f"The run directory '{path}' exists already, and a run is never overwritten. Choose another run_dir, "
        "or continue its training: training.resume=true --steps train:"
    )


def _complete_rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8", errors="replace").rstrip("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            yield row
        elif number < len(lines):
            raise RunDirectoryError(f"'{path}' line {number} is not a JSON mapping; the file is damaged.")
