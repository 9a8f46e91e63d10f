"""ZB-H1 and ZB-H2: 1F1B with the weight gradients put off (arXiv 2401.10241, section 2)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Case, ClosedForm, Duration, largest, slowest_stage_s, when
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
    p, m, c = case.pp, case.num_microbatches, case.send_s
    first, middle, last = case.first, case.middle, case.last
    b, w = middle.backward_input, middle.backward_weight
    both_first = first.forward + first.backward_input
    both, both_last = middle.forward + b, last.forward + last.backward_input
    fill = first.forward + (p - 2) * middle.forward + (p - 1) * c  # until the last rank starts
    drain = first.backward_input + (p - 2) * b + (p - 1) * c + first.backward_weight  # after its last B
    put_off = np.minimum(depth * (p - 1) + 1, m)  # weight gradients of the last rank that follow its last B
    early = (m - put_off) * last.backward_weight
    turn = fill + both_last  # the first micro-batch turns round at the last rank

    # until the last B of the last rank: it stays there, or (ZB-H1) goes back to where a micro-batch takes longest
    at_last = [fill + m * both_last + early]
    if depth == 1:
        # micro-batches wait for one another on a rank, or go round all of them: p micro-batches a turn, with one W
        around = first.total + (p - 2) * both + both_last + 2 * (p - 1) * c
        slowest = largest(first.total, last.total, when(p > 2, both + w))
        turns = np.floor((m - p - 1) / p)
        rest = m - p - 1 - p * turns
        partly = largest(rest * slowest, when((p > 2) & (rest > 0), rest * both + w + 2 * (rest - 1) * c))
        waiting = np.maximum((m - p - 1) * slowest, turns * around + partly)
        steady = 2 * both_first + first.backward_weight + 2 * (p - 2) * both + 2 * both_last + 4 * (p - 1) * c
        steady = when(m > p, steady + waiting)
        missing = np.maximum(p - m, 0)
        short = both_first + (2 * (p - 2) - missing) * both + 2 * both_last + (4 * (p - 1) - 2 - 2 * missing) * c
        short = short + np.maximum(m - p, 0) * last.total
        at_last.append(when(m > 1, np.maximum(steady, short)) + first.backward_weight - drain)

    reached = largest(*at_last)
    # or it stays on the rank before the last, from where it goes on to the first
    turned_back = np.maximum(m - depth - 1, 0) * middle.forward + (m - 1) * b
    before = turn + turned_back + np.maximum(m - 1 - depth * (p - 2), 0) * w
    onward = np.maximum(reached, when(p > 2, before))
    first_waits = turn + (p - 2) * b + (p - 1) * c + m * (first.backward_input + first.backward_weight)
    first_ends = largest(onward + drain, first_waits + (m - put_off) * first.forward, m * first.total)
    last_ends = np.maximum(reached + put_off * last.backward_weight, fill + m * last.total)
    total, own = largest(first_ends, last_ends), largest(first_ends, last_ends - fill)

    # a middle rank: its last micro-batches wait for its first (longest next to an end), or its weight gradients remain
    # (longest where all of them are put off, or next to the first rank)
    one, beyond, bend = np.ones_like(p), np.maximum(p - 2, 1), (m - 1) / depth
    chains = []
    for r in (one, beyond):
        later = np.maximum(m - 1 - depth * (p - 1 - r), 0)
        chains.append((r, turn + (p - 2 - r) * b + (p - 1 - r) * c + later * middle.forward + m * (b + w)))
    for r in (one, np.clip(np.floor(bend), one, beyond), np.clip(np.ceil(bend), one, beyond)):
        chains.append((r, onward + (p - 1 - r) * (b + c) + np.minimum(depth * r + 1, m) * w))
    chains.append((beyond, first.forward + (beyond - 1) * middle.forward + beyond * c + m * middle.total))
    for r, chain in chains:
        ends = when(p > 2, chain)
        total = np.maximum(total, ends)
        own = np.maximum(own, ends - first.forward - (r - 1) * middle.forward - r * c)
    return Duration(total, own)


def _form(depth: int) -> ClosedForm:
    return ClosedForm(
        duration=lambda case: _duration(case, depth),
        slowest_s=slowest_stage_s,
        in_flight=lambda p, v, m, rank: np.minimum(depth * (p - 1) + 1, m) + 0.0 * rank,
        supported=lambda p, v, m: v == 1,
        needs="vpp=1",
    )


ZB_H1, ZB_H2 = _form(1), _form(2)
