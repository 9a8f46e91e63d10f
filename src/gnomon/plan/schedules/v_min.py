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
    gap = p % 3 == 0  # the slots that keep passes apart
    end_f, end_b = first.f + last.f, first.b + last.b
    once = 2 * (p - 1) * (f + b) + end_f + end_b + w + 4 * (p - 1) * c
    # the others wait for one another in passes of one kind, or where they turn round at the head
    sends = (6 - 2 / thirds) * c
    in_backwards = np.maximum(6 * b + sends, np.where(gap, 4 * (b + c) + end_b, 0.0))
    in_forwards = np.maximum(6 * f + sends, np.where(gap, 4 * (f + c) + end_f, 0.0))
    turning = last.f + last.b + 2 * (f + b) + 4 * c
    around = last.f + end_b + 2 * b + first.w + 2 * c  # a weight gradient of rank 0 among backwards
    waiting = largest(
        (m - 1) * in_backwards + np.where(gap, np.maximum(f, 4 * f - 2 * b), 0.0),
        (m - 1) * in_forwards + np.where(gap, np.maximum(w + 2 * b - f, 4 * b - 2 * f), 0.0),
        when(~gap, (m - 1) * turning),
        when(p % 3 == 2, (m - 1) * around + 2 * b - last.f - w + 4 * c),
    )
    first_turns = m * (end_f + end_b + f + b + 2 * c) - (thirds - 1) * (first.f + first.b) - thirds * last.f
    first_turns = first_turns + (5 * thirds - 3) * f + (9 * thirds - 3) * b + first.w + thirds * w
    first_turns = when(gap, first_turns + (14 * thirds - 6) * c)
    # or the weight gradients are so long that nothing waits
    put_off = np.floor(p / 2)
    busy = 2 * (m - 1) * middle.total + end_f + end_b + first.w + last.w + 2 * (m + p) * c
    busy = busy + (4 * p - 5 + put_off) / 2 * (f + b) - put_off * w
    busy = busy + 1.5 * np.floor((p - 1) / 3) * np.abs(f - b)
    on_first = 2 * p * (f + b) - thirds * (first.f + first.b - f - b) - 2 * first.w - 3 * last.w + 4 * (p + 1) * c
    kept = (7 * thirds - 2) * (f + b) - (thirds - 1) * (first.f + first.b) + thirds * (w - first.w - last.w) - last.w
    on_first = m * (first.total + last.total) + np.where(gap, kept + (14 * thirds - 4) * c, on_first)
    # two ranks
    pair = 2 * (m + 1) * c
    forth = first.total + m * (turning - 4 * c) + pair
    back = first.f + 2 * f + m * (around - 2 * c) + pair
    two_first = m * (first.total + last.total) + 2 * (f + b) - last.w + 4 * c
    more = largest(once + waiting, first_turns, busy, on_first)
    total: Array = np.where(p == 2, largest(forth, back, two_first), more)
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
