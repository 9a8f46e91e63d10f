"""The truth about a run on its disk: rows in metrics.jsonl, other items in items.jsonl and files beside it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from gnomon.errors import ConfigError, TrackerWarning
from gnomon.track.base import KINDS, Item, Kind, Tracker
from gnomon.track.lines import LineAppender, read_lines
from gnomon.track.materialise import flatten_params, materialise
from gnomon.track.places import Places
from gnomon.track.settings import RankSettings


class JsonlTracker(Tracker):
    """Appends each row at once, whole or not at all, and adds the Unix time as `time_s`.

    When the disk is full it warns once, keeps the rows in memory and tries again with the next row; rows that
    could not be written by the end are printed to stderr.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS)
    in_loop = True
    settings = RankSettings

    def __init__(self, path: str | Path, rank: int = 0) -> None:
        """Write rows to `path`, and items to the folder `tracking/rank-N` beside it."""
        self.path = Path(path)
        self._folder = Places(self.path.parent).folder(rank) if rank == 0 else self.path.parent
        self._run_dir = self._folder.resolve().parents[1]
        self._rows = LineAppender(self.path)
        self._items: LineAppender | None = None
        self._number = 0
        self._kept_before: set[tuple[str, str, int | None]] = set()

    def log(self, row: Mapping[str, Any]) -> None:
        """Append the row; one system call, no fsync."""
        self._rows.append({**row, "time_s": round(time.time(), 3)})

    def record(self, item: Item) -> None:
        """Keep the item; a metric becomes a row. Raise ConfigError for a value that is not of its kind."""
        if item.kind not in self.kinds:
            super().record(item)
        if item.kind == "metric":
            if item.step is None:
                raise ConfigError(f"The metric '{item.name}' has no step. Give one: Item(kind='metric', step=...).")
            self.log({"step": item.step, item.name: float(item.value)})
            return
        try:
            self._keep(item)
        except OSError as error:
            warnings.warn(
                f"The {item.kind} '{item.name}' cannot be written to '{self._folder}' and is lost: {error.strerror}. "
                "Training goes on. Free space on this disk.",
                TrackerWarning,
                stacklevel=3,
            )

    def close(self) -> None:
        """Write what is left and close the files."""
        self._rows.close()
        if self._items is not None:
            self._items.close()

    def _keep(self, item: Item) -> None:
        if self._items is None:
            self._items = self._open_items()
        if item.step is not None and (item.kind, item.name, item.step) in self._kept_before:
            return  # a resumed run does its last steps again
        if item.kind == "param":
            entries = flatten_params(item.name, item.value)
        else:
            self._number += 1
            entries = {item.name: materialise(item, self._folder / "items" / f"{self._number:06}")}
        moment = round(time.time(), 3) if item.time_s is None else item.time_s
        for name, value in entries.items():
            line = {"kind": item.kind, "name": name, "step": item.step, "time_s": moment}
            if isinstance(value, Path):
                self._items.append({**line, "path": str(value.relative_to(self._run_dir))})
            else:
                self._items.append({**line, "value": value})

    def _open_items(self) -> LineAppender:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "items.jsonl"
        if path.exists():
            self._kept_before = {(line["kind"], line["name"], line["step"]) for line in read_lines(path)}
            self._number = sum(1 for _ in (self._folder / "items").glob("*"))
        return LineAppender(path)
