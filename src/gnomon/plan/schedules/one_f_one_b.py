"""1F1B (PipeDream-flush) and its interleaved form, as Megatron-LM runs them (arXiv 2104.04473)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration, largest, slowest_stage_s, when
from gnomon.plan.schedules.program import Exchange, Operation, Program


def one_f_one_b(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank: `pp - 1 - rank` forwards, then forward and backward in turn, then backwards.

    Megatron-LM hides no transfer of this schedule: sender and receiver wait for each other and for the data. A
    forward's output and the gradient of an earlier micro-batch cross in one exchange.
    """
    return [_rank_program(pp, rank, num_microbatches) for rank in range(pp)]


def _rank_program(pp: int, rank: int, num_microbatches: int) -> Program:
    before = [Exchange(rank - 1)] if rank > 0 else []
    after = [Exchange(rank + 1)] if rank < pp - 1 else []
    warmup = min(pp - 1 - rank, num_microbatches)
    program: Program = []
    for n in range(warmup):
        program += [*before, Operation("F", 0, n), *after]
    steady = num_microbatches - warmup
    if steady:
        program += before
    for n in range(steady):
        program += [Operation("F", 0, n + warmup), *after, Operation("B", 0, n), *before]
    for n in range(steady, num_microbatches):
        program += [*after, Operation("B", 0, n), *before]
    return program


def interleaved(pp: int, chunks: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank: 1F1B over `chunks` model chunks, each for `pp` micro-batches at a time.

    Transfers run beside the computation (Megatron-LM's overlap_p2p_comm), so the programs hold none.
    num_microbatches is a multiple of pp.
    """
    total = num_microbatches * chunks

    def visit(index: int) -> tuple[int, int]:
        """Return the turn of a chunk and the micro-batch of the index-th pass of a rank."""
        group, within = divmod(index, pp * chunks)
        turn, offset = divmod(within, pp)
        return turn, group * pp + offset

    forwards = [Operation("F", *visit(k)) for k in range(total)]
    backwards = [Operation("B", chunks - 1 - visit(k)[0], visit(k)[1]) for k in range(total)]
    programs: list[Program] = []
    for rank in range(pp):
        warmup = min(2 * (pp - 1 - rank) + (chunks - 1) * pp, total)
        steady = [op for pair in zip(forwards[warmup:], backwards, strict=False) for op in pair]
        programs.append([*forwards[:warmup], *steady, *backwards[total - warmup :]])
    return programs


def one_f_one_b_total_s(case: Case) -> Array:
    """Return the seconds of a step: the longest of the chains of operations that can be critical.

    A chain follows a micro-batch to the last rank, stays with the slowest rank for most of the step (two exchanges per
    micro-batch on a middle rank, one at the ends) and leaves through the last rank again. Exact for equal middle
    ranks while an exchange takes less than a forward.
    """
    p, m, c = case.pp, case.num_microbatches, case.sends_s
    first, middle, last = case.first.total, case.middle.total, case.last.total
    through = first + last + (p - 2) * middle + 2 * (p - 1) * c  # one micro-batch, there and back
    on_last = through + (m - 1) * (last + c)
    on_middle = when((p > 2) & (m > 1), through + last + (m - 2) * middle + (2 * m - 3) * c)
    surplus = np.maximum(m - p, 0)  # micro-batches for which the first rank is in its steady state
    on_first = when(m >= p, through + last + surplus * first + (p - 2) * middle + (m + p - 3) * c)
    # The chains above pass the last rank twice; where it is fast, one that turns round earlier is longer.
    turn_first = case.first.backward - last
    turn_middle = when(p > 2, case.middle.backward - last + c)
    drained = through + surplus * first + (m - 1 - surplus) * case.first.backward + (m - 1) * c
    return largest(
        on_last,
        on_middle + np.maximum(0.0, turn_middle),
        np.where(m < p, on_middle, on_first) + turn_first,
        on_first + np.maximum(0.0, turn_middle),
        drained,
    )


def interleaved_total_s(case: Case) -> Array:
    """Return the seconds of a step with `vpp` chunks per rank: the longest chain that can be critical.

    What the first and the last rank need beyond a middle one belongs to the first chunk (embedding) and the last
    (head and loss). Transfers hide as long as they take less than the pass of a chunk.
    """
    p, v, m, c = case.pp, case.vpp, case.num_microbatches, case.sends_s
    f, b = case.middle.forward / v, case.middle.backward / v
    first_f, first_b = case.first.forward - (v - 1) * f, case.first.backward - (v - 1) * b
    last = case.last.total - (v - 1) * (f + b)
    hops = p * (v - 1)  # passes of one micro-batch through the other chunks, and its transfers
    fill = np.maximum(first_f + (p - 1) * f + p * c, p * first_f) + (hops - 1) * (f + c)
    drain = np.maximum(first_b + (p - 1) * b + p * c, p * first_b) + (hops - 1) * (b + c)
    steady = (v - 1) * (m - p) * np.maximum(f + b, np.maximum(f, b) + c)
    on_last = fill + drain + m * last + steady
    back = (p - 2) * b + (p - 1) * c
    late_forwards = np.maximum(m - 2 * p + 1, 0) * first_f
    on_first = fill + last + back + late_forwards + m * first_b + hops * (b + c) + steady
    around = hops * (f + b) + 2 * hops * c + steady
    whole_first = m * (first_f + first_b) + around
    short = np.maximum(0.0, b + (p - 2) * c - (p - 1) * f)
    on_both = when(m >= 2 * p, (m - p) * (first_f + first_b) + p * last + around - 2 * b)
    twice_last = on_both + p * last - 2 * f + short
    returning = when(m >= 2 * p, (m - 2 * p + 1) * (first_f + first_b) + 2 * p * last)
    returning = returning + around + (p - 3) * (f + b) + 2 * p * c
    exchanging = when(m >= 2 * p, (m - 2 * p + 1) * (first_f + first_b) + 2 * p * last)
    exchanging = exchanging + (m - 2 + (v - 2) * p) * f + ((v - 1) * m + p - 2) * b
    exchanging = exchanging + ((v - 2) * m + (v + 3) * p - 2) * c
    ends = first_f + first_b + last + 2 * (p * v - 1) * c
    ends = ends + np.maximum(0.0, (p - 1) * (first_f - f) - p * c) + np.maximum(0.0, (p - 1) * (first_b - b) - p * c)
    on_middle = when(p > 2, ends + (p + v - 5) * f + (p + v - 3) * b + (m - 1) * v * (f + b))
    return largest(on_last, on_first, on_middle, whole_first, on_both, twice_last, returning, exchanging)


def _duration(case: Case) -> Duration:
    """Return the seconds of a step, interleaved where a rank holds more than one chunk."""
    plain = case.vpp == 1
    if plain.all():
        total = one_f_one_b_total_s(case)
    else:
        total = np.empty((2, *case.middle.forward.shape))
        for here, formula in ((plain, one_f_one_b_total_s), (~plain, interleaved_total_s)):
            columns = np.flatnonzero(here)
            total[..., columns] = formula(case.at(columns))
    return Duration(total, total[0])


def _in_flight(p: Array, v: Array, m: Array, rank: Array) -> Array:
    """Return the forwards before the first backward and the one with it, as micro-batches of a whole stage."""
    warmup = np.where(v == 1, p - 1 - rank, 2 * (p - 1 - rank) + (v - 1) * p)
    return np.where(p == 1, 1.0, np.minimum(warmup + 1, m * v) / v)


ONE_F_ONE_B = ClosedForm(
    duration=_duration,
    slowest_s=slowest_stage_s,
    in_flight=_in_flight,
    supported=lambda p, v, m: (v == 1) | (p == 1) | (m % p == 0),
    needs="a multiple of pp micro-batches where vpp > 1",
)
