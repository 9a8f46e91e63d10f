"""ZB-H1 and ZB-H2: 1F1B with the weight gradients put off (arXiv 2401.10241, section 2)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration, largest, slowest_stage_s, when
from gnomon.plan.schedules.program import Operation, Program


def zero_bubble(pp: int, num_microbatches: int, *, depth: int) -> list[Program]:
    """Return the program of each rank of ZB-H1 (depth 1) or ZB-H2 (depth 2).

    A rank at distance d from the last begins with `depth` d forwards and puts its first `depth` rank weight gradients
    off until its backwards by input are done. All ranks hold the same peak: depth (pp - 1) + 1 micro-batches.
    """
    programs: list[Program] = []
    for rank in range(pp):
        warmup = min(depth * (pp - 1 - rank), num_microbatches)
        delay = min(depth * rank, num_microbatches)
        program: Program = [Operation("F", 0, n) for n in range(warmup)]
        for n in range(num_microbatches):
            if n + warmup < num_microbatches:
                program.append(Operation("F", 0, n + warmup))
            program.append(Operation("B", 0, n))
            if n >= delay:
                program.append(Operation("W", 0, n - delay))
        program += [Operation("W", 0, n) for n in range(num_microbatches - delay, num_microbatches)]
        programs.append(program)
    return programs


def _duration(case: Case, depth: int) -> Duration:
    """Return how long a step takes: the longest of the chains of passes that can be critical.

    For equal stages and free transfers the bubble of the first rank is the paper's (pp - 1)(F + B - depth W), or
    (pp - 1) B where that is more; the other ranks start later, and the last one computes without a pause.
    """
    p, m, c = case.pp, case.num_microbatches, case.sends_s
    first, middle, last = case.first, case.middle, case.last
    b, w = middle.backward_input, middle.backward_weight
    both_last = last.forward + last.backward_input
    fill = first.forward + (p - 2) * middle.forward + (p - 1) * c  # until the last rank starts
    drain = first.backward_input + (p - 2) * b + (p - 1) * c + first.backward_weight  # after its last B
    put_off = np.minimum(depth * (p - 1) + 1, m)  # weight gradients of the last rank that follow its last B
    early = (m - put_off) * last.backward_weight
    turn = fill + both_last  # the first micro-batch turns round at the last rank

    # until the last B of the last rank: it stays there, or (ZB-H1) goes back to where a micro-batch takes longest
    reached = fill + m * both_last + early
    if depth == 1:
        reached = np.maximum(reached, when(m > 1, _round_trips(case)) + first.backward_weight - drain)
    # or it stays on the rank before the last, from where it goes on to the first
    turned_back = np.maximum(m - depth - 1, 0) * middle.forward + (m - 1) * b
    before = turn + turned_back + np.maximum(m - 1 - depth * (p - 2), 0) * w
    onward = np.maximum(reached, when(p > 2, before))
    first_waits = turn + (p - 2) * b + (p - 1) * c + m * (first.backward_input + first.backward_weight)
    first_ends = largest(onward + drain, first_waits + (m - put_off) * first.forward, m * first.total)
    if depth == 2:  # where the first rank begins all forwards before it has a gradient, the last of them turns early
        hops = np.floor(p - 1 - (m - 1) / depth)
        hop = middle.forward + b + 2 * c
        further = np.where((m % 2 == 0) & (m > 2), np.maximum(hop - first.forward, 0.0), 0.0)  # of the last but one
        first_ends = np.maximum(first_ends, when((hops >= 0) & (m > 1), m * first.total + hops * hop + further))
    last_ends = np.maximum(reached + put_off * last.backward_weight, fill + m * last.total)
    total, own = largest(first_ends, last_ends), largest(first_ends[0], last_ends[0] - fill[0])

    # a middle rank: its last micro-batches wait for its first (longest next to an end), or its weight gradients remain
    # (longest where all of them are put off, or next to the first rank)
    one, beyond, bend = np.ones_like(p), np.maximum(p - 2, 1), (m - 1) / depth
    chains = []
    for r in (one, beyond):
        later = np.maximum(m - 1 - depth * (p - 1 - r), 0)
        chains.append((r, turn + (p - 2 - r) * b + (p - 1 - r) * c + later * middle.forward + m * (b + w)))
    below = np.clip(np.floor(bend), one, beyond)
    if depth == 2:  # the backwards that a rank does without a gradient by weight are quicker than the last rank's
        ahead = np.minimum(depth * below + 1, m)
        left = np.maximum(m - ahead - depth * (p - 1 - below), 0) * middle.forward + (m - ahead) * b + m * w
        chains.append((below, fill + ahead * both_last + (p - 1 - below) * (b + c) + left))
    for r in (one, below, np.clip(np.ceil(bend), one, beyond)):
        chains.append((r, onward + (p - 1 - r) * (b + c) + np.minimum(depth * r + 1, m) * w))
    chains.append((beyond, first.forward + (beyond - 1) * middle.forward + beyond * c + m * middle.total))
    for r, chain in chains:
        ends = when(p > 2, chain)
        total = np.maximum(total, ends)
        own = np.maximum(own, ends[0] - first.forward - (r - 1) * middle.forward - r * case.send_s)
    return Duration(total, own)


def _round_trips(case: Case) -> Array:
    """Return how long a ZB-H1 step takes up to the last B of the first rank, where ranks wait for one another."""
    p, m, c = case.pp, case.num_microbatches, case.sends_s
    first, middle, last = case.first, case.middle, case.last
    both_first = first.forward + first.backward_input
    both, both_last = middle.forward + middle.backward_input, last.forward + last.backward_input
    # on one rank, or around all of them: p micro-batches a turn, with one gradient by weight
    around = first.total + (p - 2) * both + both_last + 2 * (p - 1) * c
    slowest = largest(first.total, last.total, when(p > 2, middle.total))
    turns = np.floor((m - p - 1) / p)
    rest = m - p - 1 - p * turns
    partly = when(rest > 0, (rest - 1) * (both + 2 * c) + largest(first.total, when(p > 2, middle.total)))
    waiting = np.maximum((m - p - 1) * slowest, turns * around + np.maximum(rest * slowest, partly))
    steady = 2 * both_first + first.backward_weight + 2 * (p - 2) * both + 2 * both_last + 4 * (p - 1) * c
    # or they turn round at the last rank after the first p micro-batches, and stay there
    missing = np.maximum(p - m, 0)
    short = both_first + (2 * (p - 2) - missing) * both + 2 * both_last + (4 * (p - 1) - 2 - 2 * missing) * c
    return largest(when(m > p, steady + waiting), short + np.maximum(m - p, 0) * last.total)


def _form(depth: int) -> ClosedForm:
    return ClosedForm(
        duration=lambda case: _duration(case, depth),
        slowest_s=slowest_stage_s,
        in_flight=lambda p, v, m, rank: np.minimum(depth * (p - 1) + 1, m) + 0.0 * rank,
        supported=lambda p, v, m: v == 1,
        needs="vpp=1",
    )


ZB_H1, ZB_H2 = _form(1), _form(2)
