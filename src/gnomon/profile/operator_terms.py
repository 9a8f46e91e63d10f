"""Map the events of a profiled step onto the planner's terms.

Every moment of a step belongs to exactly one term, so that the terms add up to the step:

1. On each host thread the time of nested operators is counted once. The outermost operator whose name decides a term
   (matrix multiply, attention, embedding, loss, communication) owns everything below it; what no name decides is
   elementwise. An optimizer, clipping or data scope owns all wall time inside it.
2. The embedding, the head and the loss are recognised by the scopes that the profiling worker sets. A backward node is
   tied to the forward operator that created it by the autograd sequence number, and inherits `embedding and head` or
   `attention` from it.
3. On a CPU a moment goes to the operator that runs on the main or the autograd thread; when there is none, but a
   collective is in flight on any thread, it is exposed communication; else it is idle (Python and dispatch overhead,
   and the autograd engine between its operators).
4. On CUDA only device time counts: a kernel belongs to the host operator that launched it, communication kernels count
   where no other kernel runs, and the host's data scope counts where the device has nothing to do.
"""

from __future__ import annotations

import heapq
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from gnomon.errors import ReportError
from gnomon.profile.operator_names import (
    EMBEDDING_SCOPE,
    FORWARD_SCOPE,
    GENERIC_TERM,
    HEAD_SCOPE,
    STEP_SCOPE,
    is_autograd_node,
    is_communication,
    term_of_annotation,
    term_of_operator,
)
from gnomon.profile.trace_events import DEVICE_CATEGORIES, TraceEvent, named
from gnomon.spec import TimeBreakdown

Key = TypeVar("Key")

_INHERITED_BY_BACKWARD = frozenset({"embedding_head_s", "attention_s"})
_COMPUTE, _COMMUNICATION, _HOST_DATA = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Label:
    """What a moment is spent on. `root` is the event that the label began with; `is_decided` stops nested names."""

    term: str
    root: TraceEvent
    is_decided: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of a thread's time with one label; a lower priority number wins where threads overlap."""

    start_ns: int
    end_ns: int
    priority: int
    label: Label


@dataclass(frozen=True, kw_only=True)
class StepProfile:
    """One profiled step: its duration, the seconds of each term but idle, and {(operator, term): (calls, seconds)}."""

    step_time_s: float
    terms: Mapping[str, float]
    operators: Mapping[tuple[str, str], tuple[float, float]]


@dataclass(slots=True)
class _Frame:
    event: TraceEvent
    label: Label | None
    inherited: str | None
    position_ns: int


@dataclass
class _Walk:
    """One pass over all host events in order of their start, with a stack for each thread."""

    stacks: defaultdict[str, list[_Frame]] = field(default_factory=lambda: defaultdict(list))
    forward_terms: dict[int, str | None] = field(default_factory=dict)
    head_end_ns: dict[str, int] = field(default_factory=dict)
    labels: dict[int, Label] = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)

    def enter(self, event: TraceEvent) -> None:
        """Push an event and label it; the time of its parent up to here becomes a segment."""
        stack = self.stacks[event.thread]
        self.leave(stack, event.start_ns)
        parent = stack[-1] if stack else None
        if parent is not None:
            self._emit(parent, event.start_ns)
        label = self._label(event, parent)
        self._remember(event, label, stack)
        stack.append(_Frame(event, label, self._inherited(event, parent), event.start_ns))

    def leave(self, stack: list[_Frame], time_ns: int) -> None:
        """Pop every event of a thread that ended by `time_ns`."""
        while stack and stack[-1].event.end_ns <= time_ns:
            frame = stack.pop()
            self._emit(frame, frame.event.end_ns)
            if stack:
                stack[-1].position_ns = max(stack[-1].position_ns, frame.event.end_ns)

    def _emit(self, frame: _Frame, until_ns: int) -> None:
        if frame.label is not None and until_ns > frame.position_ns:
            priority = _COMMUNICATION if frame.label.term == "communication_s" else _COMPUTE
            self.segments.append(Segment(frame.position_ns, until_ns, priority, frame.label))
        frame.position_ns = max(frame.position_ns, until_ns)

    def _label(self, event: TraceEvent, parent: _Frame | None) -> Label | None:
        outer = parent.label if parent and event.name != STEP_SCOPE else None
        if outer is not None and outer.is_decided:
            return outer
        if event.category == "user_annotation":
            scope = term_of_annotation(event.name)
            return Label(scope, event, True) if scope else outer
        if is_autograd_node(event.name):
            return outer
        term = self._inherited(event, parent) or term_of_operator(event.name)
        if term is not None:
            return Label(term, event, True)
        return outer or Label(GENERIC_TERM, event, False)

    def _inherited(self, event: TraceEvent, parent: _Frame | None) -> str | None:
        """Return the term that a scope, or the forward operator behind a backward node, imposes on an event."""
        if event.name == EMBEDDING_SCOPE or event.start_ns < self.head_end_ns.get(event.thread, 0):
            return "embedding_head_s"
        if event.is_backward and event.sequence is not None:
            forward = self.forward_terms.get(event.sequence)
            return forward if forward in _INHERITED_BY_BACKWARD else None
        return parent.inherited if parent else None

    def _remember(self, event: TraceEvent, label: Label | None, stack: Sequence[_Frame]) -> None:
        if event.name == HEAD_SCOPE:
            # the loss follows the head, up to the end of the forward pass
            outer = next((frame.event for frame in stack if frame.event.name == FORWARD_SCOPE), event)
            self.head_end_ns[event.thread] = outer.end_ns
        if label is not None and event.external_id is not None:
            self.labels[event.external_id] = label
        if event.sequence is not None and not event.is_backward:
            self.forward_terms[event.sequence] = label.term if label else None


def attribute_steps(events: Sequence[TraceEvent]) -> list[StepProfile]:
    """Return the profile of every step scope in the trace; raise ReportError when there is none."""
    windows = named(events, STEP_SCOPE)
    if not windows:
        raise ReportError(f"The trace has no '{STEP_SCOPE}' scope: no step was profiled. Profile the run again.")
    walk = _walk(event for event in events if event.category not in DEVICE_CATEGORIES)
    device = [event for event in events if event.category in DEVICE_CATEGORIES]
    segments = _device_segments(device, walk) if device else walk.segments
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


def _walk(events: Iterable[TraceEvent]) -> _Walk:
    walk = _Walk()
    for event in events:
        walk.enter(event)
    for stack in walk.stacks.values():
        walk.leave(stack, max((frame.event.end_ns for frame in stack), default=0))
    return walk


def _device_segments(device: Iterable[TraceEvent], walk: _Walk) -> list[Segment]:
    segments = [Segment(s.start_ns, s.end_ns, _HOST_DATA, s.label) for s in walk.segments if s.label.term == "data_s"]
    for kernel in device:
        if is_communication(kernel.name):
            label = Label("communication_s", kernel, True)
            segments.append(Segment(kernel.start_ns, kernel.end_ns, _COMMUNICATION, label))
            continue
        launcher = walk.labels.get(kernel.external_id) if kernel.external_id is not None else None
        label = launcher or Label(GENERIC_TERM, kernel, False)
        segments.append(Segment(kernel.start_ns, kernel.end_ns, _COMPUTE, label))
    return segments


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
