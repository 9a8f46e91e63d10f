"""What a tracker is told about the run that it tracks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec._noun import write_atomically
from gnomon.track.outcome import Outcome
from gnomon.track.places import Places


@dataclass(kw_only=True)
class TrackerContext:
    """The run, the rank, and what the tracker remembers of it.

    `leader` is the lowest rank that is tracked; `uid` names this run, this rank and this tracker and no other.
    `memory` holds JSON values, such as the id of the run on a server; it is saved after every batch, and given back
    to the tracker of a resumed run. `next_step` is the first step of which nothing was sent yet. `outcome` is how the
    rank ended, when the tracker is closed.
    """

    run: RunDirectory
    rank: int = 0
    world_size: int = 1
    leader: int = 0
    next_step: int = 0
    outcome: Outcome = "finished"
    uid: str = ""
    memory: dict[str, Any] = field(default_factory=dict)

    def leader_memory(self, name: str) -> Mapping[str, Any]:
        """Return what the tracker `name` of the leader remembers so far; empty before it has begun."""
        if self.rank == self.leader:
            return self.memory
        return DeliveryState.load(Places(self.run.path), name, self.leader).memory


@dataclass(kw_only=True)
class DeliveryState:
    """How far one tracker has come with the rows and items of one rank; a small JSON file.

    After a resume, rows are written a second time. While `repeated` is set, those before `last_step` were sent in the
    first place and are passed over, and so are the next `repeats_left` of that step. `outcome` is what the tracker was
    told when it was `closed`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    world_size: int = 1
    metrics_bytes: int = 0
    items_bytes: int = 0
    last_step: int = -1
    rows_at_last_step: int = 0
    repeated: bool = False
    repeats_left: int = 0
    closed: bool = False
    outcome: str = ""
    uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    memory: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, places: Places, name: str, rank: int) -> DeliveryState:
        """Return the state on the disk, or a new one where there is none."""
        try:
            document = json.loads(places.state(name, rank).read_text(encoding="utf-8"))
            return cls(**document)
        except (OSError, ValueError, TypeError):
            return cls()

    def save(self, places: Places, name: str, rank: int) -> None:
        """Write the state atomically."""
        write_atomically(places.state(name, rank), json.dumps(vars(self), indent=2) + "\n")

    def rewind(self, size_bytes: int) -> None:
        """Take note that the rows were cut to `size_bytes` by a resume, if they were sent beyond that."""
        if self.metrics_bytes > size_bytes:
            self.metrics_bytes = size_bytes
            self.repeated, self.repeats_left = True, self.rows_at_last_step

    def is_new(self, row: Mapping[str, Any]) -> bool:
        """Return whether the row was not sent before, and count it."""
        step = row.get("step")
        if not isinstance(step, int):
            return bool(row)
        if self.repeated and step < self.last_step:
            return False
        if self.repeated and step == self.last_step and self.repeats_left > 0:
            self.repeats_left -= 1
            return False
        if step > self.last_step:
            self.last_step, self.rows_at_last_step, self.repeated = step, 0, False
        self.rows_at_last_step += step == self.last_step
        return True
