"""ZB-V: no bubble for equal passes, in the memory of 1F1B (arXiv 2401.10241, section 6)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Case, ClosedForm, Duration, largest
from gnomon.plan.schedules.program import Kind, Operation, Program
from gnomon.plan.schedules.v_shape import PASSES, Order, fold, slowest_folded_s, with_weights


def zb_v(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank of ZB-V, which holds pp micro-batches and has no bubble for equal passes."""
    orders = [_zb_v_order(pp, rank, num_microbatches) for rank in range(pp)]
    return with_weights(pp, orders, limit=2 * pp)


def _zb_v_order(pp: int, rank: int, num_microbatches: int) -> Order:
    """Return the forwards and backwards of one rank: three phases of warm-up, then each pass in turn."""
    turns: list[tuple[Kind, int]] = [("F", 0)] * (2 * (pp - rank) - 1)
    turns += [("F", 1), ("F", 0)] * rank
    turns += [("F", 1), ("B", 1)] * (pp - rank)
    enough = max(num_microbatches, 2 * pp - 1)  # micro-batches beyond the last are left out below
    turns += [("F", 0), ("B", 0), ("F", 1), ("B", 1)] * enough
    order: Order = []
    begun = dict.fromkeys(PASSES, 0)
    for kind, chunk in turns:
        number = begun[kind, chunk]
        begun[kind, chunk] += 1
        if number < num_microbatches:
            order.append(Operation(kind, chunk, number))
    return order


def _duration(case: Case) -> Duration:
    """Return how long a step takes: the longest of the chains of passes that can be critical.

    Chains end on rank 0, or on rank pp - 1, which holds the middle of the model and starts pp - 1 chunks later.
    """
    p, m, c = case.pp, case.num_microbatches, case.sends_s
    first, middle, last = fold(case)
    f, b, w = middle.f, middle.b, middle.w
    hop = p - 1
    start = first.f + (p - 2) * f + hop * c
    ends = first.total + last.total - 2 * middle.total  # what one micro-batch needs beyond a middle one
    whole = 2 * m * middle.total + ends
    first_fills = 2 * hop * np.maximum(0.0, first.f - f - c)  # its warm-up takes longer than the way to the others
    far = whole + largest(hop * (2 * f - b + 3 * c), hop * (largest(f, b) + 5 * c) + first_fills, hop * (w + 3 * c))
    late = whole - 2 * hop * w
    turns = late + first_fills + hop * (2 * b + 6 * c) + (first.b + last.b - 2 * b)
    turns = turns + (last.f - f) + 2 * first.w - w - last.w
    near = late + largest(hop * (largest(f, b) + b + 6 * c) + first_fills, hop * (2 * f + 4 * c))
    # rank 0 is the slowest: it pauses only for the first and the last micro-batches
    busy = m * (first.total + last.total)
    going = np.maximum(0.0, 2 * hop * (f + c - first.f))
    stays = busy + going + hop * (2 * (b + c) - first.b) - (p - 2) * first.w - last.w
    leaves = busy + going - p * (first.b + first.w) + p * b + 2 * p * w - last.w + hop * c
    joins = busy + (2 * p - 1) * (f - first.f) - hop * (last.f + first.b + last.b) + 4 * hop * b + 6 * hop * c
    joins = joins - (p - 2) * first.w - (p + 1) * last.w + w
    crosses = busy - (2 * p - 1) * first.f - p * (first.b + first.w) - hop * (last.f + last.b) - (p + 1) * last.w
    crosses = crosses + (2 * p - 1) * (f + w) + (3 * p - 2) * b + 5 * hop * c
    crosses = crosses + largest(2 * w, hop * (f + c) + first.w - (2 * p - 3) * w)
    on_first = largest(near, turns, busy, stays, joins)
    elsewhere = largest(far, leaves, crosses)
    return Duration(largest(on_first, elsewhere), largest(on_first[0], elsewhere[0] - start[0]))


ZB_V = ClosedForm(
    duration=_duration,
    slowest_s=slowest_folded_s,
    in_flight=lambda p, v, m, rank: np.minimum(p, m) + 0.0 * rank,
    supported=lambda p, v, m: (v <= 2) & ((m >= 2 * p) | (p == 1)),
    needs="vpp of 1 or 2, and two micro-batches for each stage",
)
