"""DualPipe: micro-batches enter at both ends of the pipeline (DeepSeek-V3, arXiv 2412.19437, section 3.2.1)."""

from __future__ import annotations

from collections import Counter

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration, largest, when
from gnomon.plan.schedules.paths import Paths, longest_path
from gnomon.plan.schedules.program import Kind, Operation, Program, Together


def dualpipe(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank: half of the micro-batches enter at rank 0, half at rank pp - 1.

    pp is even and num_microbatches an even number of at least 2 pp. A forward and a backward that run together take
    the sum of their times.
    """
    return [_Rank(pp, rank, num_microbatches // 2).program() for rank in range(pp)]


class _Rank:
    """The eight phases of one rank; side 0 are the micro-batches that enter at the nearer end."""

    def __init__(self, pp: int, rank: int, half: int) -> None:
        self.near = 0 if rank < pp // 2 else 1
        self.depth = min(rank, pp - 1 - rank)  # ranks between this one and the nearer end
        self.inner = pp // 2 - 1 - self.depth  # ranks between this one and the middle
        self.half, self.steady = half, half - pp + self.depth + 1
        self.begun: Counter[tuple[Kind, int]] = Counter()
        self.weights: list[Operation] = []

    def program(self) -> Program:
        """Return all phases in order."""
        program: Program = [self.next("F", 0) for _ in range(2 * self.inner)]
        for _ in range(self.depth + 1):
            program += [self.next("F", 0), self.next("F", 1)]
        for _ in range(self.inner):
            program += [self.backward_by_input(1), self.weights.pop(0), self.next("F", 1)]
        for _ in range(self.steady):
            program += [self.together(0), self.together(1)]
        for _ in range(self.inner):
            program += [self.next("B", 1), self.together(1)]
        for turn in range(2 * (self.depth + 1)):  # the weight gradients of the second half are put off
            side = 1 - turn % 2
            program.append(self.next("B", side) if turn <= self.depth else self.backward_by_input(side))
        for _ in range(self.inner):
            program += [self.weights.pop(0), self.backward_by_input(0)]
        return program + self.weights

    def next(self, kind: Kind, side: int) -> Operation:
        """Return the pass of the next micro-batch of a side."""
        chunk = self.near ^ side
        number = self.begun[kind, chunk]
        self.begun[kind, chunk] += 1
        return Operation(kind, chunk, number + self.half * chunk)

    def backward_by_input(self, side: int) -> Operation:
        """Return a backward whose weight gradient is put off."""
        op = self.next("B", side)
        self.weights.append(Operation("W", op.chunk, op.micro_batch))
        return op

    def together(self, side: int) -> Together:
        """Return a forward of one side with a backward of the other."""
        return Together(self.next("F", side), self.next("B", 1 - side))


def _slowest_s(case: Case) -> Array:
    """Return what the busiest rank computes for one micro-batch: half of the micro-batches in each of its stages."""
    ends = (case.first.total + case.last.total) / 2
    return largest(ends, when(case.pp > 2, case.middle.total))


def _duration(case: Case) -> Duration:
    """Return how long a step takes.

    For equal stages and free transfers the bubble is the paper's (pp / 2 - 1)(F&B + B - 3 W) with F&B = F + B + W.
    """
    stages = (case.first, case.middle, case.last)
    seconds = [x for s in stages for x in (s.forward, s.backward_input, s.backward_weight)]
    return longest_path(case, seconds, np.where(case.pp <= 2, 2, 4), {2: _TWO, 4: _MORE})


_TWO = Paths("m/2 m/2 m/2 | 0 0 0 | m/2 m/2 m/2 | m/2+1")
_MORE = Paths(
    """
    m/2 m/2 m/2 | 0 0 0 | m/2 m/2 m/2 | 0
    m/2-1 m/2-p/2+1 m/2-p/2+1 | 3p/2-2 2p-4 3p/2-2 | m/2-p+2 m/2-p+2 m/2-p+1 | 2p+2e-4
    m/2-1 m/2-p/2+1 m/2-p/2+1 | p/2 2p-4 p/2 | m/2-p/2+1 m/2-p/2+1 m/2-p/2 | 2p-2
    m/2-p+2 m/2-p/2+1 m/2-p/2+1 | p-2 p-2 0 | m/2 m/2 m/2 | 2p-2
    m/2-1 m/2-p+2 m/2-p+2 | 3p/2-2 3p-6 3p/2-2 | m/2-p+2 m/2-p+2 m/2-p+1 | 3p+2e-5
    m/2-p+1 m/2-p/2+1 m/2-p/2+1 | 3p/2-2 2p-4 p/2 | m/2-p/2+1 m/2-p/2+1 m/2-p/2 | 3p-3
    m/2-p+2 m/2-p+2 m/2-p+2 | 2p-4 2p-4 p-2 | m/2-p/2+1 m/2-p/2+1 m/2-p/2+1 | 3p-3
    m/2-p+1 m/2-p+2 m/2-p+2 | 5p/2-4 3p-6 3p/2-2 | m/2-p+2 m/2-p+2 m/2-p+1 | 4p+2e-6
    m/2-p+1 m/2-p+2 m/2-p+2 | 3p-4 5p/2-4 3p/2-2 | m/2-p+1 m/2-p+1 m/2-p+1 | 7p/2+2e-5
    l+e l+e+1 l+e+1 | m+p/2-2l-2e-2 m+p-2l-2e-4 m-p/2-2l-2e | l+e+1 l+e+1 l+e | m+2p+k-2l-e-5
    k k+1 k+1 | m+p/2-2k-2 m+p-2k-4 m-p/2-2k | k+1 k+1 k | m+2p-l-5
    m/2 m/2-p/2+1 m/2-p/2+1 | 0 p-2 0 | m/2 m/2 m/2 | p-1
    m/2-1 m/2 m/2 | p/2 p-2 p/2 | m/2-p/2+1 m/2-p/2+1 m/2-p/2 | p-2
    """,
    k=lambda p, m: np.floor((m - 2) / p),  # turns around all ranks, which meet the ends of the model once
    l=lambda p, m: np.floor((m - 4) / p),
    e=lambda p, m: np.where(m > 2 * p, 1.0, 0.0),
)

DUALPIPE = ClosedForm(
    duration=_duration,
    slowest_s=_slowest_s,
    in_flight=lambda p, v, m, rank: p + 1.0 + 0.0 * rank,
    supported=lambda p, v, m: (v == 1) & (p % 2 == 0) & (m % 2 == 0) & (m >= 2 * p),
    needs="vpp=1, an even pp, and an even number of at least 2 pp micro-batches",
)
