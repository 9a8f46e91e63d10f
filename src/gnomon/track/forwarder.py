"""The trainer's side of a tracker that runs in a process of its own."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any

from gnomon.errors import TrackerWarning
from gnomon.track.base import Item, Kind, Tracker
from gnomon.track.context import DeliveryState
from gnomon.track.places import Places
from gnomon.track.settings import TrackerSettings


class Forwarder(Tracker):
    """Starts the process, says its troubles as warnings, and ends it. Rows and items reach it through the files."""

    in_loop = True

    def __init__(
        self, places: Places, settings: TrackerSettings, rank: int, world_size: int, kinds: frozenset[Kind]
    ) -> None:
        self.kinds = kinds  # type: ignore[misc]
        self._places, self._settings, self._rank = places, settings, rank
        self._log = places.log(settings.name, rank)
        self._trouble: list[str] = []
        self._rejected: list[str] = []
        self._has_warned = False
        self.has_news = False
        self._asked_at_s: float | None = None
        self._process: subprocess.Popen[str] | None = self._start(world_size)
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Warn of a trouble that has come up; the row itself is read from the file."""
        if self.has_news:
            self._warn()

    def record(self, item: Item) -> None:
        """Refuse a kind that the tracker cannot take; the item itself is read from the file."""
        if item.kind not in self.kinds:
            super().record(item)
        self.log({})

    def ask_to_close(self) -> None:
        """Ask the process to send the rest and end, without waiting for it."""
        if self._process is not None and self._asked_at_s is None:
            self._asked_at_s = time.monotonic()
            with contextlib.suppress(OSError):
                assert self._process.stdin is not None
                self._process.stdin.write("close\n")  # a worker process of the loader may hold the pipe open
                self._process.stdin.close()

    def close(self) -> None:
        """Wait until everything was sent, `close_timeout_s` at the longest."""
        if self._process is None:
            return
        self.ask_to_close()
        process, self._process = self._process, None
        assert self._asked_at_s is not None
        left_s = self._asked_at_s + self._settings.close_timeout_s - time.monotonic()
        try:
            code = process.wait(max(0.0, left_s))
            reason = f"its process ended with exit code {code}, see '{self._log}'"
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            reason = f"it did not take everything within {self._settings.close_timeout_s:g} s"
        self._listener.join(1.0)
        assert process.stdout is not None
        process.stdout.close()
        if code != 0 and not self._trouble:
            self._trouble.append(reason)
        self._warn()

    def _start(self, world_size: int) -> subprocess.Popen[str]:
        places, name, rank = self._places, self._settings.name, self._rank
        places.folder(rank).mkdir(parents=True, exist_ok=True)
        metrics = places.metrics(rank)
        orders: dict[str, Any] = {
            "settings": self._settings.to_mapping(),
            "world_size": world_size,
            "size_bytes": metrics.stat().st_size if metrics.exists() else 0,
        }
        if not places.state(name, rank).exists():  # else it may belong to a process that has not ended yet
            DeliveryState(settings=orders["settings"], world_size=world_size).save(places, name, rank)
        with self._log.open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "gnomon.track.forward", str(places.run_dir), name, str(rank)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the trainer, which then asks this process to end
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(orders) + "\n")
        process.stdin.flush()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                (self._rejected if "rejected" in message else self._trouble).extend(message.values())
                self.has_news = True
        if self._asked_at_s is None:
            self._trouble.append(f"its process ended by itself, see '{self._log}'")
            self.has_news = True

    def _warn(self) -> None:
        """Warn once of a trouble, and of every item that was refused."""
        self.has_news = False
        name, run_dir = self._settings.name, self._places.run_dir
        texts = [f"The tracker {name} leaves something out. {text}" for text in self._rejected]
        self._rejected.clear()
        if self._trouble and not self._has_warned:
            self._has_warned = True
            reason = self._trouble[0].splitlines()[0].rstrip(".")
            texts.append(
                f"The tracker {name} is in trouble: {reason}. The run goes on, and the run directory keeps everything. "
                f"What is missing is sent as soon as possible; after the run, `gnomon track sync {run_dir}` does it."
            )
        for text in texts:
            warnings.warn(text, TrackerWarning, stacklevel=4)
