"""V-Min: about a third of the activations of 1F1B (arXiv 2405.15362, section 3)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration, largest, when
from gnomon.plan.schedules.program import Program
from gnomon.plan.schedules.v_shape import fold, repeated, slowest_folded_s


def v_min(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank of V-Min, which holds about a third of the micro-batches of 1F1B."""
    gap = 2 if pp % 3 == 0 else 0
    blocks = [(r, 2 * pp - 1 - r, 2 * pp + gap + r, 4 * pp - 1 + gap - r) for r in range(pp)]
    return repeated(pp, blocks, num_microbatches)


def _duration(case: Case) -> Duration:
    """Return how long a step takes: the longest of the chains of passes that can be critical.

    A micro-batch goes through all chunks and back once; each of the others takes 6 passes of the longer kind, because
    the ranks wait for one another (the paper's reason to prefer V-Half where passes are not equal).
    """
    p, m, c = case.pp, case.num_microbatches, case.send_s
    first, middle, last = fold(case)
    f, b, w = middle.f, middle.b, middle.w
    thirds = np.maximum(np.floor(p / 3), 1)
    gap = np.where(p % 3 == 0, 1.0, 0.0)
    end_f, end_b = first.f + last.f, first.b + last.b
    once = 2 * (p - 1) * (f + b) + end_f + end_b + w + 4 * (p - 1) * c
    once = once + gap * largest(f, 4 * f - 2 * b, 4 * b - 2 * f)
    within = 6 * np.maximum(f, b) + (6 - 2 / thirds) * c
    turning = last.f + last.b + 2 * (f + b) + 4 * c
    ends = 4 * c + np.maximum(4 * f + end_f, 4 * b + end_b)
    waiting = once + (m - 1) * largest(within, turning, when(p % 3 == 0, ends))
    on_first = m * (first.total + last.total) + (2 * p + 2) * (f + b + 2 * c)
    on_first = on_first - thirds * (first.f + first.b) - (thirds + 1) * (first.w + last.w)
    # two ranks
    pair = 2 * (m + 1) * c
    forth = first.total + m * (last.f + last.b + 2 * (f + b)) + pair
    back = first.f + 2 * f + m * (last.f + last.b + 2 * b + first.b + first.w) + pair
    two_first = m * (first.total + last.total) + 2 * (f + b) - last.w + 4 * c
    # the weight gradients are so long that nothing waits
    spread = 3 * np.abs(f - b)
    busy = 2 * (m - 1) * middle.total + (2.25 * p + 1) * (f + b) - (p / 2 - 2) * w + spread + 2 * (m + p) * c
    busy = busy + first.total + last.total - 2 * middle.total
    total = np.where(p == 2, largest(forth, back, two_first), largest(waiting, on_first, busy))
    return Duration(total, total)


def _in_flight(p: Array, v: Array, m: Array, rank: Array) -> Array:
    """Return the peak of the building block; where p = 3k + 2 its gaps leave every third rank less to hold."""
    most = np.floor((p + 4) / 3)
    gaps = (p % 3 == 2) & (rank % 3 == 0)
    return np.minimum(most - np.where(gaps, np.where(rank == 0, 0.5, 1.0), 0.0), m)


V_MIN = ClosedForm(
    duration=_duration,
    slowest_s=slowest_folded_s,
    in_flight=_in_flight,
    supported=lambda p, v, m: (v <= 2) & ((m >= 2 * p) | (p == 1)),
    needs="vpp of 1 or 2, and two micro-batches for each stage",
)
