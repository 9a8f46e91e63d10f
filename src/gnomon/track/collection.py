"""Several trackers as one; what the trainer holds."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gnomon.errors import ConfigError, TrackerWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec._noun import write_atomically
from gnomon.track.base import KINDS, Item, Tracker, unsupported_kind
from gnomon.track.console import ConsoleTracker
from gnomon.track.forwarder import Forwarder
from gnomon.track.jsonl import JsonlTracker
from gnomon.track.lines import read_lines
from gnomon.track.outcome import OutcomeFile
from gnomon.track.places import Places
from gnomon.track.registry import load_tracker
from gnomon.track.settings import RankSettings, TrackerSettings


class TrackerCollection(Tracker):
    """Gives each row and item to all of its trackers, of which the first is the truth on the disk.

    A tracker that fails is left out from then on, with one warning; the others go on.
    """

    def __init__(
        self,
        truth: Tracker | None,
        others: Mapping[str, tuple[TrackerSettings, Tracker]],
        outcome: OutcomeFile | None = None,
    ) -> None:
        self.kinds = frozenset(KINDS)  # type: ignore[misc]
        self._truth = truth
        self._outcome = outcome
        self._others = dict(others)
        self._forwarders = [tracker for _, tracker in self._others.values() if isinstance(tracker, Forwarder)]

    def log(self, row: Mapping[str, Any]) -> None:
        """Give the row to all who want it."""
        if self._truth is None:
            return
        self._truth.log(row)
        for forwarder in self._forwarders:
            if forwarder.has_news:  # that is all that a tracker in a process of its own costs the loop
                forwarder.log(row)
        if len(self._others) > len(self._forwarders):
            for name, (settings, tracker) in list(self._others.items()):
                if tracker not in self._forwarders and settings.wants_row(row):
                    self._attempt(name, partial(tracker.log, row))

    def record(self, item: Item) -> None:
        """Give the item to all who can take it; the run directory always can. Raise ConfigError for a wrong kind."""
        if item.kind not in self.kinds:
            raise unsupported_kind("A run", item.kind, self.kinds)
        if self._truth is None:
            return
        self._truth.record(item)
        for name, (settings, tracker) in list(self._others.items()):
            if settings.wants_item(item.kind, tracker.kinds):
                self._attempt(name, partial(tracker.record, item))

    def flush(self) -> None:
        """Flush all; those that run in processes of their own send by themselves."""
        for name, (_, tracker) in list(self._others.items()):
            self._attempt(name, tracker.flush)

    def mark_failed(self) -> None:
        """Take note that the run failed, for a loop that is not ours and closes the trackers later."""
        if self._outcome is not None:
            self._outcome.unless_told = "failed"

    def ask_to_close(self) -> None:
        """Write what is left and let the trackers begin to send the rest, without waiting for them."""
        if self._truth is not None:
            self._truth.close()
        if self._outcome is not None:
            self._outcome.close()
        for forwarder in self._forwarders:
            forwarder.ask_to_close()

    def close(self) -> None:
        """Write and send what is left, in bounded time: all trackers use the same seconds."""
        self.ask_to_close()
        for name, (_, tracker) in list(self._others.items()):
            self._attempt(name, tracker.close)

    def _attempt(self, name: str, call: Callable[[], None]) -> None:
        try:
            call()
        except TrackerWarning:
            raise  # warnings that were turned into errors
        except (Exception, SystemExit) as error:  # rich leaves the program when its terminal has gone
            self._others.pop(name, None)
            warnings.warn(
                f"The tracker {name} failed and is left out from now on: {type(error).__name__}: {error}. "
                "The run goes on.",
                TrackerWarning,
                stacklevel=3,
            )


def create_trackers(
    settings: Sequence[RankSettings], run: RunDirectory, environment: RankEnvironment, num_steps: int
) -> TrackerCollection:
    """Return the trackers of this rank, as one; call it on every rank, after the rows of a resumed run were cut.

    Rank 0 always writes metrics.jsonl. A tracker that is not `in_loop` gets a process of its own, which reads the
    run directory. Raises ConfigError for ranks that the run does not have.
    """
    _check_ranks(settings, environment.world_size)
    wanted = [entry for entry in settings if entry.wants_rank(environment.rank)]
    if not wanted and not environment.is_main:
        return TrackerCollection(None, {})
    places, rank = Places(run.path), environment.rank
    if not environment.is_main:
        places.folder(rank).mkdir(parents=True, exist_ok=True)
        _drop_later_rows(places, rank)
    truth = JsonlTracker(places.metrics(rank), rank)
    outcome = OutcomeFile(places, rank)
    others: dict[str, tuple[TrackerSettings, Tracker]] = {}
    for entry in wanted:
        if isinstance(entry, TrackerSettings):
            others[entry.name] = entry, _create(entry, places, environment, num_steps)
    return TrackerCollection(truth, others, outcome)


def _create(settings: TrackerSettings, places: Places, environment: RankEnvironment, num_steps: int) -> Tracker:
    tracker: Any = load_tracker(settings.name)
    if tracker is ConsoleTracker:
        return ConsoleTracker(num_steps)
    if tracker.in_loop:
        return tracker(settings)  # type: ignore[no-any-return]
    return Forwarder(places, settings, environment.rank, environment.world_size, tracker.kinds)


def _drop_later_rows(places: Places, rank: int) -> None:
    """Drop the rows of a rank after the newest of rank 0, which were cut to the checkpoint of a resumed run."""
    path = places.metrics(rank)
    if path.exists():
        newest = max((row.get("step", 0) for row in read_lines(places.metrics(0))), default=0)
        rows = [row for row in read_lines(path) if row.get("step", 0) <= newest]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _check_ranks(settings: Sequence[RankSettings], world_size: int) -> None:
    for entry in settings:
        ranks = entry.ranks if isinstance(entry.ranks, tuple) else (entry.ranks,)
        if (highest := max(ranks)) >= world_size:
            raise ConfigError(
                f"The tracker '{entry.name}' has ranks={highest}, but the run has {world_size} "
                f"rank{'s' * (world_size > 1)}, counted from 0. Lower it, or set -1 for all."
            )
