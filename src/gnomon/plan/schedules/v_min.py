"""V-Min: about a third of the activations of 1F1B (arXiv 2405.15362, section 3)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration
from gnomon.plan.schedules.paths import Paths, longest_path
from gnomon.plan.schedules.program import Program
from gnomon.plan.schedules.v_shape import chunk_seconds, repeated, slowest_folded_s


def v_min(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank of V-Min, which holds about a third of the micro-batches of 1F1B."""
    gap = 2 if pp % 3 == 0 else 0
    blocks = [(r, 2 * pp - 1 - r, 2 * pp + gap + r, 4 * pp - 1 + gap - r) for r in range(pp)]
    return repeated(pp, blocks, num_microbatches)


def _duration(case: Case) -> Duration:
    """Return how long a step takes.

    Where passes differ in length the ranks wait for one another: each micro-batch takes 6 passes of the longer kind
    (the paper's reason to prefer V-Half). Paths differ with p mod 3, as the gaps of the building block do.
    """
    p = case.pp.astype(np.int64)
    return longest_path(case, chunk_seconds(case), np.where(p <= 2, 3, p % 3), _PATHS)


def _turns(p: Array, m: Array) -> Array:
    """Return how often a path begins a turn of the cycle of p / 3 ranks."""
    return np.ceil((m - 1) / np.floor(p / 3))


def _two_turns(p: Array, m: Array) -> Array:
    """Return the turns of two cycles in alternation, of p / 3 ranks and one more."""
    cycle = np.floor(p / 3)
    turns: Array = np.floor(2 * (m - cycle - 2) / (2 * cycle + 1))
    return turns


def _in_last(p: Array, m: Array) -> Array:
    """Return how often a path through those two cycles meets the last chunk."""
    turns = _two_turns(p, m)
    met: Array = np.minimum((p + 1) / 3 * turns + 2 * (p + 4) / 3 - m, np.floor(turns / 2) + 6)
    return met


_TWO = Paths(
    """
    1 1 1 | 2m 2m 0 | m m 0 | 2m+2
    1 m m | 2 2m 0 | m m 0 | 2m+2
    m m m | 2 2 0 | m m m-1 | 4
    """
)
_REST_0 = Paths(
    """
    m-p/3+1 m-p/3+1 m-p/3 | 7p/3-2 7p/3-2 p/3 | m m m-p/3-1 | 14p/3-4
    m-p/3+1 m-2p/3+1 m-2p/3 | 16p/3-4 2p-1 1 | m-p/3 m-2p/3 m-2p/3-1 | 22p/3-6
    m-p/3+1 m-p/3+1 1 | m+5p/3-3 m+3p-3 p/3 | m-p/3 m 0 | 2m+14p/3-6
    m-p/3+1 m-p/3+1 1 | m+8p/3-3 m+8p/3-3 0 | m-p/3 m-p/3 0 | 2m+16p/3-6
    p/3+2 m-p/3+1 1 | 7p/3-2 4m+p-6 p/3 | p/3+1 m 0 | 4m+10p/3-8
    2 m-p/3+1 1 | 2p+1 4m+8p/3-9 0 | 1 m-p/3 0 | 4m+14p/3-10
    2 m-p/3+1 1 | 2p-2 4m+8p/3-8 0 | 1 m-p/3+1 0 | 4m+14p/3-10
    m-p/3+1 2 1 | 4m+8p/3-8 2p-2 0 | m-p/3+1 1 0 | 4m+14p/3-10
    m-p/3+1 2 1 | 4m+8p/3-9 2p+1 0 | m-p/3 1 0 | 4m+14p/3-10
    2 q+1 1 | 2p+1 6m+2p-2q-9 0 | 1 q 0 | 6m+4p-2q-10
    2 q+1 1 | 2p-2 6m+2p-2q-8 0 | 1 q+1 0 | 6m+4p-2q-10
    q+1 2 1 | 6m+2p-2q-9 2p+1 0 | q 1 0 | 6m+4p-2q-10
    3 r 1 | 5p-7 6m-p-2r-1 0 | 2 r-1 0 | 6m+4p-2r-8
    r 3 1 | 6m-p-2r-1 5p-7 0 | r-1 2 0 | 6m+4p-2r-8
    m-p/3+1 m-p/3+1 m-2p/3 | 7p/3-2 11p/3-2 p/3 | m-p/3 m m-2p/3-1 | 6p-4
    """,
    q=_turns,
    r=lambda p, m: np.ceil(m / (p / 3)),
)
_REST_1 = Paths(
    """
    m-2p/3+2/3 m-p/3+1/3 m-p/3+1/3 | 8p/3-8/3 8p/3-8/3 0 | m m m-p/3-2/3 | 16p/3-16/3
    m-2p/3+2/3 m-2p/3+2/3 m-2p/3+2/3 | 10p/3-10/3 10p/3-10/3 0 | m m m-2p/3-1/3 | 20p/3-20/3
    1 1 1 | 2m+2p-4 2m+2p-4 0 | m m 0 | 4m+4p-8
    1 1 1 | 2p-2 6m+2p-8 0 | 1 1 0 | 6m+4p-2q-10
    1 1 1 | 3m+2p-q-5 3m+2p-q-5 0 | q+1 q+1 0 | 6m+4p-2q-10
    1 1 1 | 6m+2p-8 2p-2 0 | 1 1 0 | 6m+4p-2q-10
    s s s | 2p-2 6m+2p-6s-2 0 | s s s-1 | 6m+4p-6s-6
    m-2p/3+2/3 m-2p/3+2/3 m-2p/3+2/3 | 2p-2 6p-6 0 | m-2p/3+2/3 m-2p/3+2/3 m-2p/3-1/3 | 8p-10
    """,
    q=_turns,
    s=lambda p, m: np.ceil(m / ((p + 2) / 3)),
)
_REST_2 = Paths(
    """
    1 m-p/3+2/3 m-p/3+2/3 | 8p/3-10/3 2m+2p-4 0 | m m 0 | 2m+14p/3-22/3
    1 m-p/3+2/3 m-p/3+2/3 | 2p-2 2m+10p/3-20/3 0 | m-p/3+2/3 m-p/3+2/3 0 | 2m+16p/3-26/3
    1 1 1 | 2m+2p-4 2m+2p-4 0 | m m 0 | 4m+4p-8
    1 1 1 | 2p-2 6m+2p-8 0 | 1 1 0 | 6m+4p-2q-10
    1 1 1 | 3m+2p-q-5 3m+2p-q-5 0 | q+1 q+1 0 | 6m+4p-2q-10
    1 1 1 | 6m+2p-8 2p-2 0 | 1 1 0 | 6m+4p-2q-10
    1 1 1 | 3m+2p-n-4 3m+2p-n-4 0 | n n 0 | 6m+4p-2u-14
    1 x+1 x+1 | 2p-2 6m+2p-4x-8 0 | x+1 x+1 0 | 6m+4p-4x-2e-10
    m-2p/3+4/3 m-p/3+2/3 m-p/3+2/3 | 8p/3-10/3 10p/3-14/3 0 | m m m-2p/3+1/3 | 6p-8
    m-p/3+2/3 m-2p/3+4/3 m-2p/3+4/3 | 10p/3-14/3 8p/3-10/3 p/3-2/3 | m m m-2p/3+1/3 | 6p-8
    """,
    q=_turns,
    n=_in_last,
    u=_two_turns,
    x=lambda p, m: np.floor((m - 1) / ((p + 1) / 3)),
    e=lambda p, m: np.where((m - 1) % ((p + 1) / 3) == 0, 0.0, 1.0),
)
_PATHS = {0: _REST_0, 1: _REST_1, 2: _REST_2, 3: _TWO}


def _in_flight(p: Array, v: Array, m: Array, rank: Array) -> Array:
    """Return the peak of the building block; where p = 3k + 2 its gaps leave every third rank less to hold."""
    most = np.floor((p + 4) / 3)
    gaps = (p % 3 == 2) & (rank % 3 == 0)
    alive: Array = np.minimum(most - np.where(gaps, np.where(rank == 0, 0.5, 1.0), 0.0), m)
    return alive


V_MIN = ClosedForm(
    duration=_duration,
    slowest_s=slowest_folded_s,
    in_flight=_in_flight,
    supported=lambda p, v, m: (v <= 2) & ((m >= 2 * p) | (p == 1)),
    needs="vpp of 1 or 2, and two micro-batches for each stage",
)
