"""Simulate one step of a pipeline schedule, operation by operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.plan.schedules import programs_of
from gnomon.plan.schedules.program import (
    Exchange,
    Kind,
    Operation,
    Placement,
    Program,
    Together,
    downstream,
    peak_in_flight,
    put_off,
)

Seconds = Sequence[Sequence[float]]  # of one micro-batch, by [rank][chunk]


@dataclass(frozen=True, slots=True)
class Span:
    """One pass as it ran: F forward, B backward (by input, or both gradients), W backward by weight."""

    rank: int
    chunk: int
    micro_batch: int
    kind: Kind
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One step as it ran.

    spans: ordered by rank, then by start
    total_s: from the first forward to the last backward over all ranks
    unsynchronised_s: the longest that one rank takes from its first pass to its last; the time from step to step
        when no rank waits for the others at the optimizer
    in_flight: by rank, the most micro-batches whose activations of a whole stage are alive at once
    """

    spans: tuple[Span, ...]
    total_s: float
    unsynchronised_s: float
    in_flight: tuple[float, ...]


def simulate(
    schedule: str,
    pp: int,
    vpp: int,
    num_microbatches: int,
    forward: Seconds,
    backward_input: Seconds,
    backward_weight: Seconds,
    send_s: float,
) -> Timeline:
    """Return the timeline of one step, given the seconds of one micro-batch by [rank][chunk].

    Chunks per rank: `vpp` for 1f1b; two for zb-v, v-half and v-min (stages r and 2 pp - 1 - r) and for dualpipe
    (stages r and pp - 1 - r); one otherwise. An operation begins when its rank is free and its input has arrived,
    `send_s` after another rank made it; in plain 1f1b a transfer also holds up both ranks. Raises PlanError for a
    combination that the schedule cannot run.
    """
    placement, programs = programs_of(schedule, pp, vpp, num_microbatches)
    run = _Run(placement, programs, {"F": forward, "B": backward_input, "W": backward_weight}, send_s)
    run.execute()
    return Timeline(
        spans=tuple(span for rank in run.spans for span in rank),
        total_s=max(rank[-1].end_s for rank in run.spans),
        unsynchronised_s=max(rank[-1].end_s - rank[0].start_s for rank in run.spans),
        in_flight=tuple(peak_in_flight(program) / placement.chunks_per_stage for program in programs),
    )


class _Run:
    """Ranks that step through their programs, each as far as its inputs allow."""

    def __init__(
        self, placement: Placement, programs: list[Program], seconds: dict[Kind, Seconds], send_s: float
    ) -> None:
        self.placement, self.programs, self.seconds, self.send_s = placement, programs, seconds, send_s
        self.downstream = downstream(placement)
        self.separate = [put_off(program) for program in programs]
        self.blocking = any(isinstance(item, Exchange) for program in programs for item in program)
        self.next = [0] * len(programs)
        self.free_s = [0.0] * len(programs)
        self.done: dict[tuple[int, Operation], float] = {}
        self.spans: list[list[Span]] = [[] for _ in programs]

    def execute(self) -> None:
        """Run every program to its end."""
        moved = True
        while moved:
            moved = False
            for rank, program in enumerate(self.programs):
                while self.next[rank] < len(program) and self._step(rank, program[self.next[rank]]):
                    moved = True
        if any(at < len(program) for at, program in zip(self.next, self.programs, strict=True)):
            raise AssertionError(f"the order of operations deadlocks at {self.next}")

    def _step(self, rank: int, item: Operation | Exchange | Together) -> bool:
        """Run the next item of a rank, unless it has to wait for another rank."""
        if isinstance(item, Exchange):
            return self._exchange(rank, item.partner)
        passes = tuple(item) if isinstance(item, Together) else (item,)
        arrivals = [self._arrival_s(rank, op) for op in passes]
        if None in arrivals:
            return False
        end = max(self.free_s[rank], *(arrival for arrival in arrivals if arrival is not None))
        for op in passes:
            start, end = end, end + self._duration_s(rank, op)
            self.spans[rank].append(Span(rank, op.chunk, op.micro_batch, op.kind, start, end))
        for op in passes:
            self.done[rank, op] = end
        self.free_s[rank] = end
        self.next[rank] += 1
        return True

    def _exchange(self, rank: int, partner: int) -> bool:
        """Complete a transfer if the partner has reached it too."""
        at = self.next[partner]
        if at >= len(self.programs[partner]) or self.programs[partner][at] != Exchange(rank):
            return False
        end = max(self.free_s[rank], self.free_s[partner]) + self.send_s
        for side in (rank, partner):
            self.free_s[side] = end
            self.next[side] += 1
        return True

    def _duration_s(self, rank: int, op: Operation) -> float:
        own = self.seconds[op.kind][rank][op.chunk]
        if op.kind == "B" and (op.chunk, op.micro_batch) not in self.separate[rank]:
            return own + self.seconds["W"][rank][op.chunk]
        return own

    def _arrival_s(self, rank: int, op: Operation) -> float | None:
        """Return when the input of a pass is there, or None while it does not exist."""
        if op.kind == "W":
            return self.done.get((rank, Operation("B", op.chunk, op.micro_batch)))
        place = (rank, op.chunk)
        source = self.placement.upstream(*place) if op.kind == "F" else self.downstream.get(place)
        if source is None:
            return 0.0 if op.kind == "F" else self.done.get((rank, Operation("F", op.chunk, op.micro_batch)))
        made = self.done.get((source[0], Operation(op.kind, source[1], op.micro_batch)))
        if made is None or source[0] == rank or self.blocking:
            return made
        return made + self.send_s
