"""Trackers by name, found through the entry points `gnomon.trackers`; and the settings that name them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from gnomon.errors import ConfigError, SpecError, did_you_mean
from gnomon.track.base import Tracker, unsupported_kind
from gnomon.track.settings import RankSettings, TrackerSettings

GROUP = "gnomon.trackers"


def list_trackers() -> list[str]:
    """Return the names of all installed trackers, without importing them."""
    return sorted(_entries())


def load_tracker(name: str) -> type[Tracker]:
    """Return the class of the tracker `name`; raise ConfigError when there is none or it does not load."""
    entries = _entries()
    if name not in entries:
        raise ConfigError(f"There is no tracker '{name}'. {did_you_mean(name, entries)}")
    try:
        found: type[Tracker] = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"The tracker '{name}' does not load from '{entries[name].value}': {error}.") from None
    assert issubclass(found, Tracker), f"{entries[name].value} is not a Tracker"
    return found


def settings_class(tracker: type[Tracker]) -> type[RankSettings]:
    """Return the class of the settings of a tracker."""
    found: type[RankSettings] = getattr(tracker, "settings", TrackerSettings)
    return found


def missing_modules(tracker: type[Tracker]) -> list[str]:
    """Return the modules that the tracker needs and that are not installed."""
    return [name for name in tracker.requires if name not in sys.modules and find_spec(name) is None]


def parse_trackers(value: Any) -> tuple[RankSettings, ...]:
    """Return the settings of trackers: a name or a mapping with a name, or a list of such.

    Raises ConfigError for an unknown name or key, a kind that the tracker cannot take, a tracker that is named twice
    and a library that is not installed.
    """
    given = [] if value is None else [value] if isinstance(value, str | Mapping | RankSettings) else list(value)
    parsed = tuple(_parse(entry) for entry in given)
    names = [settings.name for settings in parsed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"trackers names '{twice}' twice. Name it once; `ranks`, `every` and `kinds` say what it gets."
        )
    return parsed


Trackers = Annotated[tuple[SerializeAsAny[RankSettings], ...], BeforeValidator(parse_trackers)]
"""The type of a field of a noun that holds the settings of trackers."""


def _parse(entry: Any) -> RankSettings:
    if isinstance(entry, RankSettings):
        entry = entry.to_mapping()
    data = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str):
        raise ConfigError(
            f"trackers holds {entry!r}. Give the name of a tracker, or a mapping with its name: "
            f"{{name: mlflow, ranks: 0}}. There are: {', '.join(list_trackers())}."
        )
    tracker = load_tracker(data["name"])
    try:
        settings = settings_class(tracker).from_mapping(dict(data), where=f"trackers, {data['name']}")
    except SpecError as error:
        raise ConfigError(str(error)) from None
    for kind in getattr(settings, "kinds", None) or ():
        if kind not in tracker.kinds:
            raise unsupported_kind(f"trackers, {settings.name}: it", kind, tracker.kinds)
    if missing := missing_modules(tracker):
        raise ConfigError(
            f"The tracker '{settings.name}' needs {', '.join(missing)}, which is not installed: "
            "pip install 'gnomon[track]'."
        )
    return settings


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
