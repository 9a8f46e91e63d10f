"""The trackers of a run, of which none may stop it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from gnomon.errors import TrackerWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.base import Tracker
from gnomon.track.registry import parse_trackers
from gnomon.train.config import TrainingConfig


def trackers_of(config: TrainingConfig, run: RunDirectory, environment: RankEnvironment) -> Tracker:
    """Return what gives the rows to all trackers of the settings, and to the line of progress."""
    from gnomon.track.collection import create_trackers  # slow to import, and not needed for steps alone

    settings = config.trackers
    if config.progress and all(each.name != "console" for each in settings):
        settings = (*settings, *parse_trackers("console"))
    return create_trackers(settings, run, environment, config.num_steps)


def tell(call: Callable[[], None]) -> None:
    """Make a call of a tracker; its failure is a warning, because no tracker may stop a run."""
    try:
        call()
    except (Exception, SystemExit) as error:  # rich leaves the program when its terminal has gone
        warnings.warn(f"A tracker failed: {type(error).__name__}: {error}", TrackerWarning, stacklevel=2)
