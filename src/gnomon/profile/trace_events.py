"""Read the events of a torch profiler trace (Chrome trace format, as Kineto writes it)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.errors import ReportError

HOST_CATEGORIES = frozenset({"cpu_op", "user_annotation"})
DEVICE_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceEvent:
    """One interval of a trace. `sequence` ties a backward node to the forward operator that created it."""

    name: str
    category: str
    start_ns: int
    end_ns: int
    thread: str = ""
    sequence: int | None = None
    is_backward: bool = False
    external_id: int | None = None

    @property
    def duration_s(self) -> float:
        """Length of the interval."""
        return (self.end_ns - self.start_ns) / 1e9


def read_trace(path: Path) -> dict[str, Any]:
    """Return the document of a trace file, plain or gzip; raise ReportError when it is missing or damaged."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        document = json.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise ReportError(f"The trace '{path}' cannot be read: {error}. Profile the run again.") from None
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise ReportError(f"'{path}' is not a profiler trace: it has no list of traceEvents. Profile the run again.")
    return document


def write_trace(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a trace document as gzip; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode("utf-8"), compresslevel=6))
    return path


def trace_events(document: Mapping[str, Any]) -> list[TraceEvent]:
    """Return the host operators, annotations and device activities of a trace, in order of their start."""
    events = [_event(item) for item in document["traceEvents"] if _is_activity(item)]
    return sorted(events, key=lambda event: (event.start_ns, -event.end_ns))


def cut_trace(document: Mapping[str, Any], window: tuple[int, int]) -> dict[str, Any]:
    """Return the document with only the events that overlap `window` (ns); metadata without a time is kept."""
    kept = [item for item in document["traceEvents"] if "ts" not in item or _overlaps(item, window)]
    return {**document, "traceEvents": kept}


def _is_activity(item: Mapping[str, Any]) -> bool:
    return item.get("ph") == "X" and item.get("cat") in HOST_CATEGORIES | DEVICE_CATEGORIES


def _event(item: Mapping[str, Any]) -> TraceEvent:
    arguments = item.get("args") or {}
    start, end = _interval(item)
    return TraceEvent(
        name=str(item["name"]),
        category=str(item["cat"]),
        start_ns=start,
        end_ns=end,
        thread=f"{item.get('pid')}/{item.get('tid')}",
        sequence=arguments.get("Sequence number"),
        is_backward=bool(arguments.get("Fwd thread id")),
        external_id=arguments.get("External id"),
    )


def _interval(item: Mapping[str, Any]) -> tuple[int, int]:
    start = round(float(item["ts"]) * 1000)
    return start, start + round(float(item.get("dur", 0)) * 1000)


def _overlaps(item: Mapping[str, Any], window: tuple[int, int]) -> bool:
    start, end = _interval(item)
    return end >= window[0] and start <= window[1]


def named(events: Iterable[TraceEvent], name: str) -> list[TraceEvent]:
    """Return the annotations called `name`, in order."""
    return [event for event in events if event.category == "user_annotation" and event.name == name]
