"""V-Half: about half of the activations of 1F1B (arXiv 2405.15362, section 3)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Case, ClosedForm, Duration, largest, when
from gnomon.plan.schedules.program import Program
from gnomon.plan.schedules.v_shape import fold, repeated, slowest_folded_s


def v_half(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank of V-Half, which holds about half of the micro-batches of 1F1B."""
    gap = 3 if pp % 2 == 0 else 0  # keeps two passes out of one slot
    blocks = [(2 * r, 3 * pp - 2 - r, 3 * pp - 1 + gap + 2 * r, 6 * pp - 2 + gap - r) for r in range(pp)]
    return repeated(pp, blocks, num_microbatches)


def _duration(case: Case) -> Duration:
    """Return how long a step takes: the longest of the chains of passes that can be critical.

    A micro-batch costs every rank 2 (f + b + w), or 4 b + w where backwards by input follow each other without a
    forward between them, or 4 f + 2 w.
    """
    p, m, c = case.pp, case.num_microbatches, case.send_s
    first, middle, last = fold(case)
    f, b, w = middle.f, middle.b, middle.w
    gap = np.where(p % 2 == 0, 1.0, 0.0)
    two = np.where(p == 2, 1.0, 0.0)
    short = p <= 3
    few = np.where(short, 0.0, w)
    fewer = np.floor((p - 1) / 2)
    half = np.floor(p / 2)
    cycles = np.maximum(half - 1, 1)
    once = first.total + last.total - 2 * middle.total  # what one micro-batch needs beyond a middle one
    sends = (5 * p - 9 + gap) * c

    # ranks that wait for one another: a period of passes of one kind, with or without the ends of the model in it
    end_b, end_f, end_w = first.b + last.b - 2 * b, first.f + last.f - 2 * f, (1 - two) * (last.w - w)
    hidden = np.maximum(few + 2 * c, few / cycles + (4 - 2 / cycles) * c)
    backwards = (2 * p + 3 * gap) * f + (2 * p - 4 - gap) * b + np.where(short, 1.0, -(p + 1 + gap) / 2) * w + sends
    with_ends = m * (few + 2 * c) + gap * (m - half + 1) * end_b
    backwards = backwards + 4 * m * b + np.maximum(m * hidden, with_ends)
    forwards = (2 * p - 4) * f + (2 * p + gap) * b - p * w + sends
    forwards = forwards + m * (4 * f + (2 - two) * w + 2 * c) + gap * (m - p + 1) * np.maximum(0.0, end_f + end_w)
    turning = m * (last.f + last.b + f + b + w + 2 * c) + (2 * p - 4) * (f + b) + (4 * p - 6) * c
    turning = when(gap == 0, turning + 2 * (f + b) - last.f - last.b - (p + 1) / 2 * w)
    # all passes of a middle rank, and all of rank 0
    busy = 2 * m * middle.total + (np.where(short, 0.0, m) + 3 * p) * c
    busy_early = busy + (p + 2) * f + (2 * p - 5) * b
    busy_late = busy + 1.5 * p * (f + c) + (2.5 * p - 3) * b - p * w
    on_first = m * (first.total + last.total) - fewer * (first.f + first.b) - (fewer + gap) * first.w - last.w
    on_first = on_first + 2 * (p - 1) * (f + b) + 4 * (p - 1) * c
    total = largest(largest(backwards, forwards, turning, busy_early, busy_late) + once, on_first)
    return Duration(total, total)


V_HALF = ClosedForm(
    duration=_duration,
    slowest_s=slowest_folded_s,
    in_flight=lambda p, v, m, rank: np.minimum(np.floor((p + 2) / 2), m) + 0.0 * rank,
    supported=lambda p, v, m: (v <= 2) & ((m >= 2 * p) | (p == 1)),
    needs="vpp of 1 or 2, and two micro-batches for each stage",
)
