"""V-Half: about half of the activations of 1F1B (arXiv 2405.15362, section 3)."""

from __future__ import annotations

import numpy as np

from gnomon.plan.schedules.case import Array, Case, ClosedForm, Duration
from gnomon.plan.schedules.paths import Paths, longest_path
from gnomon.plan.schedules.program import Program
from gnomon.plan.schedules.v_shape import chunk_seconds, repeated, slowest_folded_s


def v_half(pp: int, num_microbatches: int) -> list[Program]:
    """Return the program of each rank of V-Half, which holds about half of the micro-batches of 1F1B."""
    gap = 3 if pp % 2 == 0 else 0  # keeps two passes out of one slot
    blocks = [(2 * r, 3 * pp - 2 - r, 3 * pp - 1 + gap + 2 * r, 6 * pp - 2 + gap - r) for r in range(pp)]
    return repeated(pp, blocks, num_microbatches)


def _duration(case: Case) -> Duration:
    """Return how long a step takes; short pipelines have paths of their own."""
    p = case.pp.astype(np.int64)
    return longest_path(case, chunk_seconds(case), np.where(p < 6, np.maximum(p, 2), 6 + p % 2), _PATHS)


def _turns(m: Array, ranks: Array) -> Array:
    """Return the turns of a cycle of backwards by input: in each a micro-batch waits for two transfers less."""
    return np.floor((m - 6) / ranks)


def _weights(m: Array, ranks: Array) -> Array:
    """Return the gradients by weight in that cycle: one a turn, and the last two micro-batches give one back each."""
    turns = _turns(m, ranks)
    left = m - 6 - ranks * turns
    return turns - 1 - np.maximum(0.0, left - ranks + 3)


def _wide_turns(p: Array, m: Array) -> Array:
    """Return the turns of the cycle with one more rank, where most micro-batches wait for no gradient by weight."""
    return np.floor((m + (p - 5) / 2) / ((p - 1) / 2))


_TWO = Paths(
    """
    m m m | 2 0 0 | m m m | 2
    2 m 1 | 2 2m 0 | 1 m 0 | 2m+2
    2 m 1 | 4 2m 0 | 1 m-1 0 | 2m+2
    m 2 1 | 2m 2 m-2 | m 1 0 | 2m+2
    m 2 1 | 2m 4 m-2 | m-1 1 0 | 2m+2
    m 3 1 | 2m-2 4 m-3 | m-1 2 0 | 2m+2
    q+1 m-q+1 q | 2q+2 2m-2q+2 q-1 | q m-q q-1 | 2m-2q+4
    m m m-1 | 2 2 0 | m m m-1 | 4
    2 2 1 | 2m 2m 2m-4 | 1 1 0 | 6
    m m m-1 | 4 2 0 | m m-1 m-2 | 6
    m-1 m m-1 | 4 4 0 | m-1 m-1 m-2 | 6
    m m m-2 | 4 4 0 | m-1 m-1 m-3 | 8
    m m-1 m-2 | 6 4 1 | m-1 m-2 m-3 | 8
    m-1 m m-2 | 2 6 0 | m-2 m m-3 | 8
    m-1 m m-2 | 4 6 0 | m-2 m-1 m-3 | 8
    m-1 m-1 m-2 | 6 6 1 | m-2 m-2 m-3 | 8
    """,
    q=lambda p, m: np.floor(m / 2),
)
_THREE = Paths(
    """
    1 1 1 | 2m 2m+4 2m-4 | 1 1 0 | 10
    m-2 m-1 m-1 | 5 5 0 | m m m-2 | 10
    m-2 m-2 m-2 | 6 6 1 | m m m-3 | 12
    m-2 m-2 m-2 | 4 12 0 | m-2 m-2 m-4 | 14
    m-2 m-2 m-2 | 5 9 1 | m-1 m-1 m-4 | 14
    r+1 r+1 1 | m+r+3 m+r+3 m-2r-1 | m-2r m-2r 0 | 2m+2r+6
    1 1 1 | 4 4m 0 | 1 1 0 | 2m+6
    1 1 1 | 4m 4 2m-4 | 1 1 0 | 2m+6
    1 1 1 | 4m-5 7 2m-4 | 2 2 0 | 2m+6
    1 1 1 | m+3 m+3 m-2 | m m 0 | 2m+6
    2 2 2 | m+1 m+5 m-3 | m-1 m-1 0 | 2m+6
    q q q | 4 4m-4q+4 0 | q q 0 | 2m+6
    2 2 1 | 4m-8 8 2m-7 | 2 2 0 | 2m+8
    m-1 m m | 4 0 0 | m m m | 4
    m-1 m-1 m-1 | 4 4 0 | m m m-1 | 8
    k+1 k+1 2 | 4k 4k+4 k-1 | k+1 k+1 0 | 8k+4
    """,
    q=lambda p, m: np.floor(m / 2),
    r=lambda p, m: np.floor((m - 1) / 3),
    k=lambda p, m: np.floor(m / 3),
)
_FOUR = Paths(
    """
    m-1 m-1 m-2 | 6 6 0 | m m m-1 | 12
    m-2 m-1 m-3 | 6 10 2 | m-2 m m-3 | 16
    m-2 m-2 m-3 | 10 10 3 | m-2 m-2 m-3 | 16
    2 2 1 | 2m+2 2m+6 2m-6 | 1 1 0 | 18
    m-2 m-1 m-3 | 10 10 1 | m-2 m-2 m-4 | 20
    m-2 m-2 m-4 | 12 12 3 | m-3 m-3 m-5 | 20
    m-3 m-1 m-3 | 6 14 1 | m-3 m-1 m-4 | 20
    m-3 m-1 m-4 | 8 16 1 | m-4 m-2 m-5 | 22
    m-3 3 2 | 2m+6 8 m-2 | m-3 2 m-4 | 2m+10
    m-3 5 2 | 2m-6 16 m-5 | m-4 5 m-5 | 2m+10
    2 2 1 | 4m 6 2m-6 | 2 1 1 | 2m+12
    2 2 1 | 4m-2 10 2m-6 | 1 1 0 | 2m+12
    2 m-1 1 | 6 2m+6 m-4 | 1 m-1 0 | 2m+12
    2 m-2 1 | 8 2m+8 m-4 | 1 m-3 0 | 2m+12
    2 m-2 1 | 8 2m+8 m-5 | 1 m-3 0 | 2m+14
    m-2 2 1 | 2m+8 6 m-4 | m-2 1 m-4 | 2m+14
    m-2 3 1 | 2m+2 12 m-5 | m-3 2 m-5 | 2m+14
    m-3 2 1 | 2m+10 6 m-3 | m-3 1 m-4 | 2m+14
    m-3 2 1 | 2m+6 12 m-3 | m-4 1 m-5 | 2m+14
    2 m-q 1 | 8q-4m+12 6m-6q 0 | 1 m-q-1 0 | 2m+2q+10
    q 2 1 | 4m-2q 12 2m-3q-2 | q-1 1 m-q-3 | 2m+2q+10
    m-q 2 1 | 2m+2q+4 6 m-q | m-q 1 m-q-1 | 2m+2q+8
    m-1 3 2 | 2m-2 6 m-4 | m 4 m-1 | 2m+4
    m-2 3 2 | 2m+2 6 m-4 | m-1 3 m-2 | 2m+8
    q q+1 q | 2m-2q+6 2m-2q+6 2m-2q-3 | q q q-1 | 2m-2q+12
    2 q+1 1 | 6 4m-2q+2 2q-m+1 | 1 q+1 0 | 4m-2q+8
    2 q+1 1 | 8 4m-2q+2 -m+2q+1 | 1 q 0 | 4m-2q+8
    """,
    q=lambda p, m: np.floor(m / 2),
)
_FIVE = Paths(
    """
    m-2 m-2 m-2 | 8 8 0 | m m m-1 | 16
    h+1 h+1 1 | 8h+8i+8 8h+4g+4 h+2i-g+1 | h+1 h+1 0 | 16h+6i+4g+12
    j+2 j+2 2 | 8j+8 8j+16 j | j+2 j+2 0 | 16j+24
    1 1 1 | 2m+2 2m+10 2m-6 | 1 1 0 | 20
    m-4 m-2 m-2 | 10 10 0 | m m m-3 | 20
    m-4 m-2 m-2 | 9 13 1 | m-1 m-1 m-4 | 22
    m-4 m-4 m-4 | 12 12 2 | m m m-5 | 24
    m-5 m-5 m-5 | 14 18 6 | m-3 m-3 m-7 | 26
    m-4 m-4 m-4 | 9 21 2 | m-3 m-3 m-6 | 28
    1 1 1 | 4m+4 8 2m-6 | 1 1 0 | 2m+16
    1 1 1 | 4m-1 11 2m-6 | 2 2 0 | 2m+16
    1 1 1 | 8 4m+4 m-4 | 1 1 0 | 2m+16
    1 1 1 | 9 4m+1 m-3 | 2 2 0 | 2m+16
    1 1 1 | m+8 m+8 m-3 | m-1 m-1 0 | 2m+16
    -m+2q+2 -m+2q+2 1 | m+q+7 m+q+7 m-q-2 | 2m-3q-1 2m-3q-1 0 | 2m+2q+14
    2 2 1 | 4m-8 16 2m-2q-5 | 2 2 0 | 2m+2q+14
    r r r | m-3r+10 m+5r+2 m-3r+2 | m-2r+2 m-2r+2 0 | 2m+2r+12
    1 1 1 | 4m-4q+1 4q+9 3m-2q-7 | 2 2 0 | 2q+20
    1 1 1 | 4m+4 8 2q-2 | 1 1 0 | 4m-2q+12
    1 1 1 | 8 4m+4 2q-m+1 | 1 1 0 | 4m-2q+12
    q-1 q-1 q-1 | 8 4m-4q+12 -m+3q-3 | q-1 q-1 0 | 4m-4q+18
    2 2 2 | 3q+2 3q+10 q-2 | q q 0 | 6q+12
    """,
    q=lambda p, m: np.floor(m / 2),
    r=lambda p, m: np.floor(m / 3),
    h=lambda p, m: np.floor(m / 5),
    j=lambda p, m: np.floor((m - 4) / 5),
    i=lambda p, m: np.where(m % 5 >= 2, 1.0, 0.0),
    g=lambda p, m: np.where((m % 5 == 0) | (m % 5 == 2), 0.0, 1.0),
)
_EVEN = Paths(
    """
    m-p/2+1 p/2+1 p/2 | 2m-2 2p-2 m-p | m p m-1 | 2m+2p-4
    m-p/2-1 p/2+1 p/2 | 2m+p+2 2p-2 m-p+1 | m-2 p/2 m-p/2-1 | 2m+3p-2
    2 2 1 | 4m-6 4p-2 2m-p-2 | 1 1 0 | 2m+5p-10
    m-p+1 p/2+2 3 | 2m+2 5p-10 m-p/2-1 | m-p+1 p/2+1 m-p | 2m+5p-12
    m-p+1 p/2+2 3 | 2m-4 5p-8 m-p/2-3 | m-p+2 p/2+2 m-p+1 | 2m+5p-12
    2 2 1 | 4m+2p-8 2p 2m-p-2 | 1 1 0 | 2m+5p-8
    2 m-p/2+1 1 | 2p-2 2m+3p-6 m-p/2-2 | 1 m-p/2+1 0 | 2m+5p-8
    m-p+1 2 1 | 2m+4p-6 2p-2 m-p+1 | m-p+1 1 m-p | 2m+6p-10
    m-p+1 4 2 | 2m-4 6p-6 m-p-2 | m-p 3 m-p-1 | 2m+6p-12
    2 p+s-6 1 | 2p+4 4m-2s+4 p+s-8 | 1 p+s-7 0 | 4m+2p-2s+6
    2 p+s-6 1 | 2p-2 4m-2s+8 p+s-9 | 1 p+s-6 0 | 4m+2p-2s+6
    2 q+2 1 | 2p 4m+2p-2q-8 w | 1 q+1 0 | 4m+4p-2q-10
    u 2 1 | 4m+2p-2u-4 2p u | u-1 1 u-2 | 4m+4p-2u-8
    v 2 1 | 4m-2v 4p-4 v | v-1 1 v-2 | 4m+4p-2v-8
    m-p/2 m-p/2 m-p/2-1 | 2p+2 2p+2 3 | m-2 m-2 m-3 | 4p
    m-p/2+1 m-p/2+1 m-p/2 | 2p-2 2p-2 0 | m m m-1 | 4p-4
    m-p/2 m-p/2 m-p/2-1 | 3p 2p+2 3 | m-2 m-p/2-1 m-p/2-2 | 5p-2
    2 2 1 | 2m+p-2 2m+3p-6 2m-p-2 | 1 1 0 | 6p-6
    m-p+2 m-p/2+1 m-p+1 | 2p 5p-10 p/2 | m-p+2 m-p/2+1 m-p+1 | 7p-12
    m-p+2 m-p/2+1 m-p+1 | 2p-2 5p-10 p/2 | m-p+2 m-p/2+2 m-p+1 | 7p-12
    m-p+1 m-p/2+1 m-p | 2p 5p-4 p/2-1 | m-p m-p/2 m-p-1 | 7p-6
    2 2 1 | 2m+p 2m+3p-8 2m-p-2 | 1 1 0 | m+11p/2+z-10
    """,
    q=lambda p, m: _turns(m, p / 2 - 1),
    w=lambda p, m: _weights(m, p / 2 - 1),
    s=lambda p, m: np.floor(m / (p / 2 - 1)),
    u=lambda p, m: np.ceil(m / (p / 2)),
    v=lambda p, m: np.floor(m / (p / 2)),
    z=lambda p, m: (m + p / 2) % 2,
)
_ODD = Paths(
    """
    1 1 1 | m+2p-3 m+2p-3 m-p/2-1/2 | m m 0 | 2m+4p-6
    2 2 2 | m+3p/2-5/2 m+7p/2-17/2 m-p/2-1/2 | m-p/2+3/2 m-p/2+3/2 0 | 2m+5p-11
    1 1 1 | 2p-2 4m+2p-6 m-p/2-3/2 | 1 1 0 | 2m+5p-9
    1 1 1 | 4m+2p-6 2p-2 2m-p-1 | 1 1 0 | 2m+5p-9
    1 1 1 | 4m+p-6 3p-4 2m-p-1 | 2 2 0 | 2m+5p-9
    1 1 1 | m+5p/2-9/2 m+5p/2-9/2 m-p/2-1/2 | m-p/2+3/2 m-p/2+3/2 0 | 2m+5p-9
    1 1 1 | 2p-2 4m+2p-6 w | 1 1 0 | 4m+4p-2q-10
    1 1 1 | 2m+2p-u-4 2m+2p-u-4 u-1 | u+1 u+1 0 | 4m+4p-2u-8
    1 1 1 | 4m+2p-6 2p-2 2u-2 | 1 1 0 | 4m+4p-2u-8
    1 1 1 | 4m+p-6 3p-4 2u-2 | 2 2 0 | 4m+4p-2u-8
    1 1 1 | 2p-2 4m+2p-6 n | 1 1 0 | 4m+4p-2x-8
    1 1 1 | 2p-1 4m+2p-9 y+1 | 2 2 0 | 4m+4p-2y-12
    r+1 r+1 r+1 | 2p+2e-1 4m+2p-4r-2e-9 r+1 | r+2 r+2 0 | 4m+4p-4r-12
    m-p/2+1/2 m-p/2+1/2 m-p/2+1/2 | 2p-2 2p-2 0 | m m m-1 | 4p-4
    1 1 1 | 2m+p-3 2m+3p-5 2m-p-1 | 1 1 0 | 5p-5
    m-p+1 m-p/2+1/2 m-p/2+1/2 | 5p/2-5/2 5p/2-5/2 0 | m m m-p/2-1/2 | 5p-5
    m-p+1 m-p+1 m-p+1 | 3p-3 3p-3 p/2-1/2 | m m m-p | 6p-6
    m-p+1 m-p/2+1/2 m-p/2+1/2 | 2p-1 4p-7 1 | m-p/2+3/2 m-p/2+3/2 m-p/2-3/2 | 6p-8
    m-p+1 m-p+1 m-p+1 | 5p/2-5/2 9p/2-9/2 p/2-1/2 | m-p/2+1/2 m-p/2+1/2 m-p-1 | 7p-7
    m-p+1 m-p+1 m-p+1 | 2p 6p-12 p/2+1/2 | m-p+3 m-p+3 m-p-1 | 7p-9
    m-p+1 m-p+1 m-p+1 | 9p/2-9/2 5p/2-5/2 p/2-1/2 | m-p/2+1/2 m-p/2+1/2 m-p | 7p-9
    1 1 1 | 2m+p-z-2 2m+3p-z-8 2m-p-1 | z+2 z+2 0 | m+11p/2-z-17/2
    """,
    q=lambda p, m: _turns(m, (p - 3) / 2),
    w=lambda p, m: _weights(m, (p - 3) / 2),
    r=lambda p, m: np.floor((m - 4) / ((p - 1) / 2)),
    e=lambda p, m: np.where((m - 3) % ((p - 1) / 2) == 0, 1.0, 0.0),  # the last micro-batch of such a turn
    u=lambda p, m: np.ceil((m - 1) / ((p - 1) / 2)),
    y=lambda p, m: _turns(m + 2, (p - 3) / 2),
    x=_wide_turns,
    n=lambda p, m: np.minimum(2, 1 - m + (p - 1) / 2 * _wide_turns(p, m)),
    z=lambda p, m: (m + (p + 1) / 2) % 2,
)
_PATHS = {2: _TWO, 3: _THREE, 4: _FOUR, 5: _FIVE, 6: _EVEN, 7: _ODD}

V_HALF = ClosedForm(
    duration=_duration,
    slowest_s=slowest_folded_s,
    in_flight=lambda p, v, m, rank: np.minimum(np.floor((p + 2) / 2), m) + 0.0 * rank,
    supported=lambda p, v, m: (v <= 2) & ((m >= 2 * p) | (p == 1)),
    needs="vpp of 1 or 2, and two micro-batches for each stage",
)
