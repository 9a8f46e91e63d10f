"""Launchers by name, found through the entry points `gnomon.launchers`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from gnomon.errors import ConfigError, LaunchError, did_you_mean
from gnomon.launch.local import RankJob

GROUP = "gnomon.launchers"


def load_launcher(name: str) -> Callable[[RankJob], None]:
    """Return the function that starts the ranks of a job and watches over them to their end.

    Raises ConfigError for an unknown name, and LaunchError when it does not load.
    """
    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        raise ConfigError(f"launcher='{name}' is not installed. {did_you_mean(name, entries)}")
    try:
        launch: Callable[[RankJob], None] = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise LaunchError(f"launcher='{name}' does not load from '{entries[name].value}': {error}.") from error
    return launch
