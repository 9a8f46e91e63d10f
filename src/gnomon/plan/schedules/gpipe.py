"""GPipe: all forwards, then all backwards (arXiv 1811.06965)."""

from __future__ import annotations

from gnomon.plan.schedules.case import Case, ClosedForm, Duration, largest, slowest_stage_s, when
from gnomon.plan.schedules.program import Operation, Program


def gpipe(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank: every forward, then every backward, in the order of micro-batches."""
    batches = range(num_microbatches)
    forwards = [Operation("F", 0, n) for n in batches]
    backwards = [Operation("B", 0, n) for n in batches]
    return [[*forwards, *backwards] for _ in range(pp)]


def gpipe_duration(case: Case) -> Duration:
    """Return the seconds of a step, exactly.

    Both halves are flow shops of equal jobs: the sum over the ranks and, for all micro-batches but one, the slowest.
    """
    first, middle, last = case.first, case.middle, case.last
    slowest_forward = largest(first.forward, last.forward, when(case.pp > 2, middle.forward))
    slowest_backward = largest(first.backward, last.backward, when(case.pp > 2, middle.backward))
    once = first.total + last.total + (case.pp - 2) * middle.total
    free = once + (case.num_microbatches - 1) * (slowest_forward + slowest_backward)
    total = free + 2 * (case.pp - 1) * case.sends_s
    return Duration(total, total[0])


GPIPE = ClosedForm(
    duration=gpipe_duration,
    slowest_s=slowest_stage_s,
    in_flight=lambda p, v, m, rank: m + 0.0 * rank,
    supported=lambda p, v, m: v == 1,
    needs="vpp=1",
)
