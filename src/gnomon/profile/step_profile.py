"""Add up labelled time: the terms of a profiled step, and what they say of an unprofiled one."""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gnomon.errors import ReportError
from gnomon.profile.operator_names import STEP_SCOPE
from gnomon.profile.operator_terms import Label, Segment, label_segments
from gnomon.profile.trace_events import TraceEvent, named
from gnomon.spec import TimeBreakdown

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """One profiled step: its duration, the seconds of each term but idle, and {(operator, term): (calls, seconds)}."""

    step_time_s: float
    terms: Mapping[str, float]
    operators: Mapping[tuple[str, str], tuple[float, float]]


def attribute_steps(events: Sequence[TraceEvent]) -> list[StepProfile]:
    """Return the profile of every step scope in the trace; raise ReportError when there is none."""
    windows = named(events, STEP_SCOPE)
    if not windows:
        raise ReportError(f"The trace has no '{STEP_SCOPE}' scope: no step was profiled. Profile the run again.")
    segments = label_segments(events)
    return [_profile(window, segments) for window in windows]


def typical_step(steps: Sequence[StepProfile]) -> StepProfile:
    """Return the mean over the middle half of the steps, by duration.

    A step that something else disturbed is left out, and unlike medians the terms and operators still add up.
    """
    quarter = len(steps) // 4
    middle = sorted(steps, key=lambda step: step.step_time_s)[quarter : len(steps) - quarter]
    pairs = {
        key: [step.operators.get(key, (0.0, 0.0)) for step in middle] for key in _keys(s.operators for s in middle)
    }
    return StepProfile(
        step_time_s=statistics.fmean(step.step_time_s for step in middle),
        terms={t: statistics.fmean(s.terms.get(t, 0.0) for s in middle) for t in _keys(s.terms for s in middle)},
        operators={
            key: (statistics.fmean(calls for calls, _ in found), statistics.fmean(seconds for _, seconds in found))
            for key, found in pairs.items()
        },
    )


def _keys(mappings: Iterable[Mapping[Key, object]]) -> list[Key]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def scale_factor(terms: Mapping[str, float], step_time_s: float) -> float:
    """Return the factor, at most 1, that makes the busy terms of profiled steps fit into an unprofiled step."""
    busy = sum(terms.values())
    return min(1.0, step_time_s / busy) if busy > 0 else 1.0


def time_breakdown(terms: Mapping[str, float], step_time_s: float) -> TimeBreakdown:
    """Return the busy terms of profiled steps inside an unprofiled step of `step_time_s`; they add up to it.

    A step is slower while the profiler watches. Busy terms that exceed the unprofiled step are scaled down in
    proportion and leave no idle time; otherwise they stay as they were seen and the rest of the step is idle.
    """
    factor = scale_factor(terms, step_time_s)
    busy = {term: factor * value for term, value in terms.items() if term != "idle_s"}
    return TimeBreakdown(**busy, idle_s=max(0.0, step_time_s - sum(busy.values())))


def _profile(window: TraceEvent, segments: Iterable[Segment]) -> StepProfile:
    times = _exclusive_times(window, segments)
    terms: defaultdict[str, float] = defaultdict(float)
    operators: dict[tuple[str, str], tuple[float, float]] = {}
    for label, seconds in times.values():
        terms[label.term] += seconds
        key = (label.root.name, label.term)
        calls, total = operators.get(key, (0.0, 0.0))
        operators[key] = (calls + 1, total + seconds)
    return StepProfile(step_time_s=window.duration_s, terms=dict(terms), operators=operators)


def _exclusive_times(window: TraceEvent, segments: Iterable[Segment]) -> dict[int, tuple[Label, float]]:
    """Return {label id: (label, seconds)}; every moment goes to the active segment with the lowest priority number."""
    inside = sorted(
        (s for s in segments if s.end_ns > window.start_ns and s.start_ns < window.end_ns), key=lambda s: s.start_ns
    )
    times: dict[int, tuple[Label, float]] = {}
    active: list[tuple[int, int, int]] = []
    now = window.start_ns
    for index, segment in enumerate(inside):
        now = _advance(active, inside, now, max(segment.start_ns, window.start_ns), times)
        heapq.heappush(active, (segment.priority, segment.start_ns, index))
    _advance(active, inside, now, window.end_ns, times)
    return times


def _advance(
    active: list[tuple[int, int, int]],
    segments: Sequence[Segment],
    now: int,
    until: int,
    times: dict[int, tuple[Label, float]],
) -> int:
    """Hand out the time from `now` to `until` to the active segments, and return `until`."""
    while active and now < until:
        segment = segments[active[0][2]]
        end = min(segment.end_ns, until)
        if end > now:
            label = segment.label
            times[id(label)] = (label, times.get(id(label), (label, 0.0))[1] + (end - now) / 1e9)
            now = end
        if segment.end_ns <= now:
            heapq.heappop(active)
    return until
