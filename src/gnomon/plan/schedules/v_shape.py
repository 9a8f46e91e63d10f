"""Schedules that fold the model: rank r holds the stages r and 2p - 1 - r of 2p.

Each is an order of forwards and backwards; the weight gradients are placed by executing that order with passes of
equal length: one goes wherever a rank would wait, or would hold more activations than the schedule allows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gnomon.plan.schedules.case import Array, Case, largest
from gnomon.plan.schedules.program import Kind, Operation, Program, Vee, downstream

PASSES: tuple[tuple[Kind, int], ...] = (("F", 0), ("F", 1), ("B", 1), ("B", 0))  # as a micro-batch meets them
Order = list[Operation]
_PERIOD = 6  # passes of one micro-batch on a rank: F, B and W of two chunks


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Seconds of one micro-batch in one chunk."""

    f: Array
    b: Array
    w: Array

    @property
    def total(self) -> Array:
        """All three passes, in seconds."""
        return self.f + self.b + self.w


def fold(case: Case) -> tuple[Chunk, Chunk, Chunk]:
    """Return the first chunk of the model, a middle one and the last; rank 0 holds the first and the last.

    The stages of the unfolded model tell: half of a middle stage is a middle chunk, and what the first and the last
    stage have beyond a middle one goes into the chunks at the ends.
    """
    halves = [x / 2 for x in (case.middle.forward, case.middle.backward_input, case.middle.backward_weight)]
    ends = [
        Chunk(f=stage.forward - halves[0], b=stage.backward_input - halves[1], w=stage.backward_weight - halves[2])
        for stage in (case.first, case.last)
    ]
    return ends[0], Chunk(f=halves[0], b=halves[1], w=halves[2]), ends[1]


def chunk_seconds(case: Case) -> list[Array]:
    """Return the seconds of F, B and W in the first chunk of the model, a middle one and the last."""
    return [seconds for chunk in fold(case) for seconds in (chunk.f, chunk.b, chunk.w)]


def slowest_folded_s(case: Case) -> Array:
    """Return what the slowest rank of a folded model computes for one micro-batch."""
    first, _, last = fold(case)
    return largest(first.total + last.total, case.middle.total)


def repeated(pp: int, blocks: list[tuple[int, int, int, int]], num_microbatches: int) -> list[Program]:
    """Return programs that repeat a block, the slots of the passes of one micro-batch by rank, every six slots."""
    orders, peaks = [], []
    for block in blocks:
        slots = {
            slot + _PERIOD * n: Operation(kind, chunk, n)
            for (kind, chunk), slot in zip(PASSES, block, strict=True)
            for n in range(num_microbatches)
        }
        orders.append([slots[slot] for slot in sorted(slots)])
        peaks.append(_peak(slots))
    return with_weights(pp, orders, limit=max(peaks))


def _peak(slots: dict[int, Operation]) -> int:
    """Return the most chunk activations alive when weight gradients take free slots as early as they can."""
    alive = peak = pending = 0
    for slot in range(max(slots) + 1):
        if slot not in slots:
            alive, pending = (alive - 1, pending - 1) if pending else (alive, 0)
        elif slots[slot].kind == "F":
            alive += 1
            peak = max(peak, alive)
        else:
            pending += 1
    return peak


def with_weights(pp: int, orders: list[Order], limit: int) -> list[Program]:
    """Return the orders with weight gradients, placed by executing them in slots of equal length."""
    ranks = [_Slots(rank, order, limit) for rank, order in enumerate(orders)]
    placement = Vee(pp)
    inputs: dict[str, Any] = {
        "F": {(r, c): placement.upstream(r, c) for r in range(pp) for c in (0, 1)},
        "B": downstream(placement),
    }
    done: set[tuple[int, Operation]] = set()

    def ready(rank: int, op: Operation) -> bool:
        source = inputs[op.kind].get((rank, op.chunk))
        if source is None:
            return op.kind == "F" or (rank, Operation("F", op.chunk, op.micro_batch)) in done
        return (source[0], Operation(op.kind, source[1], op.micro_batch)) in done

    while not all(rank.finished for rank in ranks):
        done.update([(slots.rank, op) for slots in ranks if (op := slots.choose(ready)) is not None])
    return [rank.program for rank in ranks]


class _Slots:
    """One rank that fills slot after slot."""

    def __init__(self, rank: int, order: Order, limit: int) -> None:
        self.rank, self.order, self.limit = rank, order, limit
        self.at = self.alive = 0
        self.pending: list[Operation] = []
        self.program: Program = []

    @property
    def finished(self) -> bool:
        """Whether every pass has its slot."""
        return self.at == len(self.order) and not self.pending

    def choose(self, ready: Callable[[int, Operation], bool]) -> Operation | None:
        """Return what fills the next slot: the next pass if it can run, else a weight gradient, else nothing."""
        op = self.order[self.at] if self.at < len(self.order) else None
        if op is not None and ready(self.rank, op) and (op.kind == "B" or self.alive < self.limit):
            self.at += 1
            if op.kind == "F":
                self.alive += 1
            else:
                self.pending.append(Operation("W", op.chunk, op.micro_batch))
        elif self.pending:
            op = self.pending.pop(0)
            self.alive -= 1
        else:
            return None
        self.program.append(op)
        return op
