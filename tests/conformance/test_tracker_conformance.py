"""The trackers that gnomon ships pass the suite that it gives to third parties."""

import io

from rich.console import Console

from gnomon.track.conformance import TrackerConformance
from gnomon.track.console import ConsoleTracker
from gnomon.track.jsonl import JsonlTracker


class TestJsonl(TrackerConformance):
    def create_tracker(self, folder):
        return JsonlTracker(folder / "metrics.jsonl")


class TestConsole(TrackerConformance):
    def create_tracker(self, folder):
        return ConsoleTracker(10, Console(file=io.StringIO()))


class TestConsoleOnATerminal(TrackerConformance):
    def create_tracker(self, folder):
        return ConsoleTracker(10, Console(file=io.StringIO(), force_terminal=True))
