"""Provenance as W3C PROV-JSON: what a run used, what it made, with what and by whom."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from gnomon.track.base import KINDS, Item, Kind, Tracker
from gnomon.track.context import TrackerContext
from gnomon.track.lines import read_lines
from gnomon.track.materialise import file_digest, safe_name
from gnomon.track.places import Places
from gnomon.track.rows import metrics_of
from gnomon.track.settings import ProvSettings

LONGEST_STALE_S = 10.0
"""The document is written anew this often while the run goes on, and at its end."""


class ProvTracker(Tracker):
    """Writes prov.json, made from what is in the run directory: it can be made anew at any time.

    The training is the activity; it used the configuration, the environment, parameters and data sets, and generated
    metrics, checkpoints and everything else that was recorded. Its agents are gnomon and the user.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset(KINDS)
    requires = ("prov",)
    settings = ProvSettings

    def __init__(self, settings: ProvSettings, context: TrackerContext) -> None:
        self._settings, self._context = settings, context
        suffix = "" if context.rank == 0 else f"-rank-{context.rank}"
        self.path = context.run.path / f"prov{suffix}.json"
        self._written_at_s = 0.0
        self._is_open = True

    def log(self, row: Mapping[str, Any]) -> None:
        """Do nothing: the document is made from the file of all rows."""

    def record(self, item: Item) -> None:
        """Do nothing: the document is made from the file of all items. Raise ConfigError for an unknown kind."""
        if item.kind not in self.kinds:
            super().record(item)

    def flush(self) -> None:
        """Write the document, if it has not been written for a while."""
        if time.monotonic() - self._written_at_s > LONGEST_STALE_S:
            self._write()

    def close(self) -> None:
        """Write the document."""
        if self._is_open:
            self._is_open = False
            self._write()

    def _write(self) -> None:
        text = describe(self._context, self._settings.namespace).serialize(indent=2)
        self._context.run.write_text(self.path.name, str(text) + "\n")
        self._written_at_s = time.monotonic()


def describe(context: TrackerContext, namespace: str) -> Any:
    """Return the `ProvDocument` of a run, as its directory is now."""
    from prov.model import ProvDocument

    document = ProvDocument()
    document.add_namespace("run", namespace)
    document.add_namespace("gnomon", "https://example.org/gnomon/terms#")
    places, run = Places(context.run.path), context.run
    environment = _read_json(run.environment)
    rows = read_lines(places.metrics(context.rank))
    ended = rows[-1].get("time_s") if rows else None
    training = document.activity(
        f"run:training-{context.uid or 'run'}",
        environment.get("date_utc"),
        datetime.fromtimestamp(ended, UTC).isoformat() if ended else None,
        _attributes({"rank": context.rank, "ranks": context.world_size, "command": environment.get("command")}),
    )
    _add_agents(document, training, environment)
    _add_files(document, training, context, rows)
    for line in read_lines(places.items(context.rank)):
        _add_item(document, training, line)
    return document


def _add_agents(document: Any, training: Any, environment: Mapping[str, Any]) -> None:
    versions = environment.get("versions") or {}
    software = document.agent("run:gnomon", {"prov:type": "prov:SoftwareAgent", **_attributes(versions)})
    user = document.agent("run:user", {"prov:type": "prov:Person", "gnomon:name": _user()})
    document.wasAssociatedWith(training, software)
    document.actedOnBehalfOf(software, user)


def _add_files(document: Any, training: Any, context: TrackerContext, rows: list[dict[str, Any]]) -> None:
    run = context.run
    for path in (run.config, run.environment, run.path / "training.json"):
        if path.exists():
            document.used(training, document.entity(f"run:{path.name}", _file_attributes(path, "configuration")))
    metrics = Places(run.path).metrics(context.rank)
    if metrics.exists():
        last: dict[str, Any] = {}
        for row in rows:
            last.update({f"last_{name}": value for name, value in metrics_of(row).items()})
        attributes = {**_file_attributes(metrics, "metrics"), **_attributes({"rows": len(rows), **last})}
        document.wasGeneratedBy(document.entity("run:metrics.jsonl", attributes), training)
    previous = None
    for folder in sorted(path for path in run.checkpoints.glob("step-*") if path.is_dir()):
        checkpoint = document.entity(f"run:checkpoints/{folder.name}", _attributes({"kind": "checkpoint"}))
        document.wasGeneratedBy(checkpoint, training)
        if previous is not None:
            document.wasDerivedFrom(checkpoint, previous)
        previous = checkpoint


def _add_item(document: Any, training: Any, line: Mapping[str, Any]) -> None:
    kind, step, value = line["kind"], line["step"], line.get("value")
    name = f"run:{kind}/{safe_name(line['name'])}" + ("" if step is None else f"/step-{step}")
    attributes = _attributes(
        {"kind": kind, "name": line["name"], "step": step, "path": line.get("path"), "value": value}
    )
    entity = document.entity(name, attributes)
    if kind in ("param", "dataset"):
        document.used(training, entity)
    else:
        document.wasGeneratedBy(entity, training, datetime.fromtimestamp(line["time_s"], UTC).isoformat())


def _file_attributes(path: Path, kind: str) -> dict[str, Any]:
    return _attributes({"kind": kind, "path": path.name, "sha256": file_digest(path)})


def _attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes of PROV: plain values as they are, others as JSON; what is None is left out."""
    return {
        f"gnomon:{safe_name(str(name))}": value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for name, value in values.items()
        if value is not None
    }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a user without a name, as in some containers
        return "unknown"
