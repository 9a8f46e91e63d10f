"""Simulate a pipeline schedule operation by operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gnomon.plan.schedules import Exchange, Kind, Operation, Placement, Program, programs_of

Seconds = Sequence[Sequence[float]]  # [rank][chunk]


@dataclass(frozen=True, slots=True)
class Span:
    """One operation as it ran."""

    rank: int
    chunk: int
    micro_batch: int
    kind: Kind
    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """A step as it ran: the spans of all ranks in order of their rank and start."""

    spans: tuple[Span, ...]
    total_s: float
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

    An operation begins when its rank is free and its input has arrived, `send_s` after it was made on another rank.
    Raises PlanError for a combination that the schedule cannot run.
    """
    placement, programs = programs_of(schedule, pp, vpp, num_microbatches)
    split = any(op.kind == "W" for program in programs for op in program if isinstance(op, Operation))
    seconds = {"F": forward, "B": backward_input, "W": backward_weight}

    def duration(rank: int, op: Operation) -> float:
        own = seconds[op.kind][rank][op.chunk]
        return own if split or op.kind == "F" else own + backward_weight[rank][op.chunk]

    run = _Run(placement, programs, send_s)
    spans = run.execute(duration)
    return Timeline(
        spans=tuple(span for rank in spans for span in rank),
        total_s=max(rank[-1].end_s for rank in spans),
        in_flight=tuple(peak_in_flight(program, placement.chunks, split) for program in programs),
    )


def peak_in_flight(program: Program, chunks: int, split: bool) -> float:
    """Return the most micro-batches whose activations a rank holds at once; a chunk counts 1 / chunks.

    Activations live from the start of F to the end of W, or of B where B computes both gradients.
    """
    alive = peak = 0
    for op in program:
        if isinstance(op, Exchange):
            continue
        if op.kind == "F":
            alive += 1
            peak = max(peak, alive)
        elif op.kind == "W" or not split:
            alive -= 1
    return peak / chunks


class _Run:
    """Ranks that step through their programs, each as far as its inputs allow."""

    def __init__(self, placement: Placement, programs: list[Program], send_s: float) -> None:
        self.programs, self.send_s = programs, send_s
        self.blocking = any(isinstance(item, Exchange) for program in programs for item in program)
        self.next = [0] * len(programs)
        self.free_s = [0.0] * len(programs)
        self.done: dict[tuple[int, Operation], float] = {}
        self.upstream = {
            (rank, chunk): placement.upstream(rank, chunk)
            for rank in range(len(programs))
            for chunk in range(placement.chunks)
        }
        self.downstream = {source: place for place, source in self.upstream.items() if source is not None}

    def execute(self, duration: Callable[[int, Operation], float]) -> list[list[Span]]:
        """Run every program to its end and return the spans of each rank."""
        spans: list[list[Span]] = [[] for _ in self.programs]
        moved = True
        while moved:
            moved = False
            for rank, program in enumerate(self.programs):
                while self.next[rank] < len(program):
                    item = program[self.next[rank]]
                    if isinstance(item, Exchange):
                        if not self._exchange(rank, item.partner):
                            break
                    else:
                        arrival = self._arrival_s(rank, item)
                        if arrival is None:
                            break
                        start = max(self.free_s[rank], arrival)
                        end = start + duration(rank, item)
                        self.done[rank, item] = self.free_s[rank] = end
                        self.next[rank] += 1
                        spans[rank].append(Span(rank, item.chunk, item.micro_batch, item.kind, start, end))
                    moved = True
        if any(at < len(program) for at, program in zip(self.next, self.programs, strict=True)):
            raise AssertionError(f"the order of operations deadlocks at {self.next}")
        return spans

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

    def _arrival_s(self, rank: int, op: Operation) -> float | None:
        """Return when the input of an operation is there, or None while it does not exist."""
        if op.kind == "W":
            return self.done.get((rank, Operation("B", op.chunk, op.micro_batch)))
        place = (rank, op.chunk)
        source = self.upstream[place] if op.kind == "F" else self.downstream.get(place)
        if source is None:
            return 0.0 if op.kind == "F" else self.done.get((rank, Operation("F", op.chunk, op.micro_batch)))
        made = self.done.get((source[0], Operation(op.kind, source[1], op.micro_batch)))
        if made is None or source[0] == rank or self.blocking:
            return made
        return made + self.send_s
