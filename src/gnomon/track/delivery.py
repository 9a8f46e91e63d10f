"""Sending what a run has written to one tracker: each row and item once, however often the sender dies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gnomon.track.base import Item, ItemRejectedError, Kind, Tracker
from gnomon.track.context import DeliveryState, TrackerContext
from gnomon.track.lines import LineReader
from gnomon.track.outcome import read_outcome
from gnomon.track.places import Places
from gnomon.track.settings import TrackerSettings

BATCH_LINES = 500

_Line = tuple[float, dict[str, Any], int]


class Delivery:
    """The way of the rows and items of one rank to one tracker.

    The state is saved after each batch. A sender that dies between sending and saving sends that batch once more,
    with the same steps and times, which backends recognise.
    """

    def __init__(
        self,
        places: Places,
        settings: TrackerSettings,
        rank: int,
        create: Callable[[], Tracker],
        context: TrackerContext,
        state: DeliveryState,
    ) -> None:
        self._places, self._settings, self._rank = places, settings, rank
        self._create, self._context, self.state = create, context, state
        context.memory = state.memory
        self._rows, self._items = LineReader(places.metrics(rank)), LineReader(places.items(rank))
        self._tracker: Tracker | None = None
        self.close_timeout_s = settings.close_timeout_s
        self.sent_rows = self.sent_items = 0
        self.rejected: list[str] = []

    def pending_bytes(self) -> int:
        """Return how much of the files was not sent yet."""
        state = self.state
        return self._rows.size_bytes() - state.metrics_bytes + self._items.size_bytes() - state.items_bytes

    def is_complete(self) -> bool:
        """Return whether the tracker has everything, and how the run ended."""
        is_closed = self.state.closed and self.state.outcome == read_outcome(self._places, self._rank)
        return is_closed and self.pending_bytes() == 0

    def send_batch(self) -> bool:
        """Send a batch and return whether there was anything; raise what the tracker raises, having sent nothing."""
        tracker = self._connected()
        moved = replace(self.state)
        batch = self._take(moved, tracker.kinds)
        if moved == self.state:
            return False
        try:
            taken = [self._give(tracker, entry) for entry in batch]
            tracker.flush()
        except BaseException:
            self._tracker = None  # the next batch is sent by a new one
            raise
        self.sent_rows += taken.count("row")
        self.sent_items += taken.count("item")
        self.state = moved
        self.state.memory = self._context.memory
        self.save()
        return True

    def finish(self) -> None:
        """Close the tracker, which may tell how the run ended, and remember that it was."""
        tracker = self._connected()
        self._context.outcome = read_outcome(self._places, self._rank)
        tracker.close()
        self._tracker = None
        self.state.closed, self.state.outcome = True, self._context.outcome
        self.save()
        self._rows.close()
        self._items.close()

    def save(self) -> None:
        """Save the state; a full disk is no reason not to send."""
        with contextlib.suppress(OSError):
            self.state.save(self._places, self._settings.name, self._rank)

    def _connected(self) -> Tracker:
        if self._tracker is None:
            self._context.next_step = self.state.last_step + 1
            self._tracker = self._create()
            self.state.closed = False
            self.save()  # the memory of the ids of runs that were just made
        return self._tracker

    def _take(self, state: DeliveryState, kinds: frozenset[Kind]) -> list[Mapping[str, Any] | Item]:
        """Return the next rows and items that are to be sent, in the order of their times; move `state` behind them."""
        rows = [(_time(row), row, end) for row, end in self._rows.read(state.metrics_bytes, BATCH_LINES)]
        lines = [(_time(line), line, end) for line, end in self._items.read(state.items_bytes, BATCH_LINES)]
        # where there are more of one sort, what is later than its last one has to wait
        newest = min((sort[-1][0] for sort in (rows, lines) if len(sort) == BATCH_LINES), default=float("inf"))
        batch: list[tuple[float, Mapping[str, Any] | Item]] = []
        for moment, row, end in _until(rows, newest):
            state.metrics_bytes = end
            if state.is_new(row) and self._settings.wants_row(row):
                batch.append((moment, row))
        for moment, line, end in _until(lines, newest):
            state.items_bytes = end
            if self._settings.wants_item(line.get("kind", ""), kinds):
                batch.append((moment, self._item(line)))
        batch.sort(key=lambda entry: entry[0])
        return [entry for _, entry in batch]

    def _item(self, line: Mapping[str, Any]) -> Item:
        value = self._places.run_dir.resolve() / line["path"] if "path" in line else line.get("value")
        return Item(kind=line["kind"], name=line["name"], value=value, step=line["step"], time_s=line["time_s"])

    def _give(self, tracker: Tracker, entry: Mapping[str, Any] | Item) -> str:
        """Give the tracker a row or an item and return which it was; empty for an item that it can never take."""
        if not isinstance(entry, Item):
            tracker.log(entry)
            return "row"
        if isinstance(entry.value, Path) and not entry.value.exists():
            self.rejected.append(f"The {entry.kind} '{entry.name}' is gone: there is no '{entry.value}'.")
            return ""
        try:
            tracker.record(entry)
        except (ItemRejectedError, TypeError, ValueError) as error:
            if isinstance(error, OSError):  # as those of requests are, which tell of the network
                raise
            self.rejected.append(f"The {entry.kind} '{entry.name}' was refused: {error}")
            return ""
        return "item"


def _time(line: Mapping[str, Any]) -> float:
    return float(line.get("time_s") or 0.0)


def _until(lines: list[_Line], newest_s: float) -> Iterator[_Line]:
    """Yield the lines until the first that is newer; at least one, so that it goes on."""
    for number, line in enumerate(lines):
        if number > 0 and line[0] > newest_s:
            return
        yield line
