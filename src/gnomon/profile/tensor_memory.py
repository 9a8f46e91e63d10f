"""Memory of one rank: tensors alive at the peak, and the resident memory of the process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.errors import ReportError
from gnomon.profile.operator_names import STEP_SCOPE
from gnomon.profile.trace_events import named, trace_events

_CPU_DEVICE_TYPE = 0
_STATUS = Path("/proc/self/status")


def peak_growth_bytes(document: Mapping[str, Any]) -> float:
    """Return how far the bytes of CPU tensors rise, during the last profiled step, above those at its start.

    The profiler knows only of tensors made while it watches, and ignores the release of older ones. So an earlier
    step must be in the trace, in which every tensor that a step replaces (the gradients) is made anew; the caller
    adds the bytes alive between the two steps. Raises ReportError when fewer than two steps were profiled.
    """
    steps = named(trace_events(document), STEP_SCOPE)
    if len(steps) < 2:
        raise ReportError(f"The memory trace has {len(steps)} step(s), 2 are needed. Profile the run again.")
    start_us, end_us = steps[-1].start_ns / 1000, steps[-1].end_ns / 1000
    totals = sorted((float(item["ts"]), item["args"]["Total Allocated"]) for item in _memory_items(document))
    before = next((total for time, total in reversed(totals) if time < start_us), 0)
    return float(max((total for time, total in totals if start_us <= time <= end_us), default=before) - before)


def _memory_items(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        item
        for item in document["traceEvents"]
        if item.get("name") == "[memory]" and item["args"]["Device Type"] == _CPU_DEVICE_TYPE
    ]


def resident_bytes() -> int:
    """Return the resident memory of this process now, or its highest where the system does not tell."""
    return _status_bytes("VmRSS") or _maximum_resident_bytes()


def peak_resident_bytes() -> int:
    """Return the highest resident memory of this process so far.

    Linux's VmHWM starts at zero in a new program; getrusage's ru_maxrss is inherited from the process that started it.
    """
    return _status_bytes("VmHWM") or _maximum_resident_bytes()


def _status_bytes(key: str) -> int | None:
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _maximum_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
