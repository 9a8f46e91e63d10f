"""Equal accelerators are not equally fast: a synchronous step waits for the slowest of its ranks."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases

# expected largest of 2^k standard normal numbers: Blom, Statistical Estimates and Transformed Beta-Variables (1958)
_DOUBLINGS = np.arange(25.0)
_LARGEST = np.array([0.0, *(NormalDist().inv_cdf((n - 0.375) / (n + 0.25)) for n in 2.0 ** _DOUBLINGS[1:])])


def expected_largest(ranks: Array) -> Array:
    """Return the expected largest of as many standard normal numbers; between powers of two, linear in log2."""
    return np.asarray(np.interp(np.log2(ranks), _DOUBLINGS, _LARGEST))


def stragglers_s(cases: Cases, compute_s: Array) -> Array:
    """Return how much longer than the mean rank, which computes for `compute_s`, the slowest one is expected to take.

    The step times of single ranks are taken as normal, with `variation` as standard deviation over mean.
    """
    split = cases.split
    return cases.rates.variation * expected_largest(split.dp * split.tp * split.pp * split.cp) * compute_s
