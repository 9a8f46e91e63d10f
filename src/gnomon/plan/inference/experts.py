"""How many routed experts a batch of tokens needs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gnomon.plan.arrays import Array


def expected_distinct_experts(num_experts: ArrayLike, experts_per_token: ArrayLike, tokens: ArrayLike) -> Array:
    """Return the expected number of experts that at least one of `tokens` tokens is sent to:  E (1 - (1 - k/E)^b).

    Each token goes to k different experts of E, all equally likely and independent of other tokens. A real router
    prefers some experts, so fewer are distinct.
    """
    e, k, b = (np.asarray(x, dtype=np.float64) for x in (num_experts, experts_per_token, tokens))
    present = e > 0
    missed = np.where(present, 1.0 - k / np.where(present, e, 1.0), 1.0)
    return np.asarray(np.where(present, e * (1.0 - missed**b), 0.0), dtype=np.float64)
