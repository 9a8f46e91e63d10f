"""The process that sends what a run has written to one tracker: python -m gnomon.track.forward.

It reads the files of the run directory, so that the training loop does nothing for it, and goes on to the end of them
when the trainer is killed. It ends when its standard input says so or ends, at the latest after a while. Its standard
output is one JSON object per thing that the user should know.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from typing import Any

from gnomon.runtime.run_directory import RunDirectory
from gnomon.track.base import NotReadyError
from gnomon.track.context import DeliveryState, TrackerContext
from gnomon.track.delivery import Delivery
from gnomon.track.places import Places
from gnomon.track.registry import load_tracker, parse_trackers
from gnomon.track.settings import TrackerSettings

POLL_S = 0.25
LONGEST_PAUSE_S = 30.0
UNSENT_EXIT_CODE = 3


def open_delivery(places: Places, name: str, rank: int, orders: Mapping[str, Any] | None = None) -> Delivery:
    """Return the delivery to the tracker `name` as its saved state says.

    `orders` are those of a trainer that (re)starts: its settings, world_size, and size_bytes of the rows at that time.
    """
    state = DeliveryState.load(places, name, rank)
    if orders is not None:
        state.settings, state.world_size = orders["settings"], orders["world_size"]
        state.rewind(orders["size_bytes"])
    (settings,) = parse_trackers(state.settings)
    assert isinstance(settings, TrackerSettings)
    context = TrackerContext(
        run=RunDirectory(places.run_dir),
        rank=rank,
        world_size=state.world_size,
        leader=settings.leader,
        uid=state.uid,
    )
    tracker: Any = load_tracker(name)
    return Delivery(places, settings, rank, lambda: tracker(settings, context), context, state)


def lock(places: Places, name: str, rank: int, wait: bool) -> int | None:
    """Return an open file that keeps other senders out until it is closed; None if another one has it."""
    descriptor = os.open(places.lock(name, rank), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    if sys.platform == "win32":
        return descriptor
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        pass  # some network file systems know no locks
    return descriptor


class _Sender:
    """Sends until it is told to end."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._ending = threading.Event()
        self._parent = os.getppid()
        self._told: set[str] = set()
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def run(self) -> int:
        """Return 0 when everything was sent."""
        pause_s, deadline = POLL_S, float("inf")
        while True:
            if self._ending.is_set() and deadline == float("inf"):
                deadline = time.monotonic() + self._delivery.close_timeout_s
            ending = self._ending.is_set()
            try:
                moved = self._delivery.send_batch()
                self._tell_rejected()
                if not moved and ending:
                    self._delivery.finish()
                    return 0
                pause_s = POLL_S
            except NotReadyError:
                moved = False
            except Exception as error:
                traceback.print_exc()
                self._tell("trouble", f"{type(error).__name__}: {error}")
                if ending:  # it was tried once more, and there is no time to wait for better times
                    return UNSENT_EXIT_CODE
                moved, pause_s = False, min(2 * pause_s, LONGEST_PAUSE_S)
            if time.monotonic() > deadline:
                return UNSENT_EXIT_CODE
            if not moved:
                self._pause(pause_s)

    def _pause(self, pause_s: float) -> None:
        if self._ending.is_set():
            time.sleep(min(pause_s, POLL_S))
            return
        self._ending.wait(pause_s)
        if os.getppid() != self._parent:
            self._ending.set()

    def _wait_for_end(self) -> None:
        sys.stdin.readline()
        self._ending.set()

    def _tell_rejected(self) -> None:
        for text in self._delivery.rejected:
            self._tell("rejected", text)
        self._delivery.rejected.clear()

    def _tell(self, kind: str, text: str) -> None:
        """Tell the trainer, once for each kind of trouble and each rejected item."""
        key = kind if kind == "trouble" else text
        if key in self._told:
            return
        self._told.add(key)
        try:
            print(json.dumps({kind: text}), file=_messages, flush=True)
        except OSError:  # the trainer has gone
            return


# libraries print to standard output; that goes to the log, too
_messages = sys.stdout


def main(run_dir: str, name: str, rank: int) -> int:
    """Send until the end, and return the exit code."""
    places = Places(run_dir)
    orders = json.loads(sys.stdin.readline())
    descriptor = lock(places, name, rank, wait=True)  # the sender of the run that this one resumes may still be there
    delivery = open_delivery(places, name, rank, orders)
    delivery.save()
    code = _Sender(delivery).run()
    if descriptor is not None:
        os.close(descriptor)
    return code


if __name__ == "__main__":
    _messages = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    exit_code = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)  # threads of libraries must not keep it alive
