"""How a run ended, or that it has not: one word per rank in a file, for trackers that show it."""

from __future__ import annotations

import contextlib
import sys
from typing import Literal, get_args

from gnomon.errors import InterruptedRunError
from gnomon.spec._noun import write_atomically
from gnomon.track.places import Places

Outcome = Literal["running", "finished", "failed", "killed"]


class OutcomeFile:
    """Says `running` from now on, until `close` says how it ended; a process that is killed leaves it as it is."""

    def __init__(self, places: Places, rank: int) -> None:
        self._places, self._rank = places, rank
        self._error_before = sys.exception()  # a run may be started where another error is being handled
        self._is_open = True
        self.unless_told: Outcome = "finished"
        self._write("running")

    def close(self) -> None:
        """Write how the run ended: trackers are closed while what has ended it passes through, else `unless_told`."""
        if not self._is_open:
            return
        self._is_open = False
        error = sys.exception()
        if error is None or error is self._error_before:
            self._write(self.unless_told)
        elif isinstance(error, InterruptedRunError | KeyboardInterrupt | SystemExit):
            self._write("killed")
        else:
            self._write("failed")

    def _write(self, outcome: Outcome) -> None:
        with contextlib.suppress(OSError):  # a full disk must not stop a run
            self._places.folder(self._rank).mkdir(parents=True, exist_ok=True)
            write_atomically(self._places.outcome(self._rank), f"{outcome}\n")


def read_outcome(places: Places, rank: int) -> Outcome:
    """Return how a rank ended that does not run any more; where nothing is known, that it finished."""
    try:
        word = places.outcome(rank).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return "finished"
    if word == "running":
        return "killed"  # it had no time to say anything else
    return next((outcome for outcome in get_args(Outcome) if outcome == word), "finished")
