"""Label the events of a trace with the planner's terms; `step_profile` adds the labels up.

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

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

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
from gnomon.profile.trace_events import DEVICE_CATEGORIES, TraceEvent

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


def label_segments(events: Sequence[TraceEvent]) -> list[Segment]:
    """Return the labelled pieces of time of all host threads, or of the devices where the trace has any."""
    walk = _walk(event for event in events if event.category not in DEVICE_CATEGORIES)
    device = [event for event in events if event.category in DEVICE_CATEGORIES]
    return _device_segments(device, walk) if device else walk.segments


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
