"""The halves of a model: its decoder, and the encoder before it where there is one (T5, arXiv 1910.10683).

Formulas are those of one half, with the tokens and the mask that it sees. An average layer is their mean, weighted by
the layers of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases


class Half(NamedTuple):
    """The cases as one half sees them, and the `share` of all layers that it has; the decoder's name is empty."""

    name: str
    share: Array
    cases: Cases


def halves(cases: Cases) -> Iterator[Half]:
    """Yield the decoder and, where one of the cases has it, the encoder: bidirectional, without a second attention."""
    model = cases.model
    if not np.any(model.encoder_layers):
        yield Half("", np.ones(1), cases)
        return
    share = model.encoder_layers / model.num_layers
    yield Half("", 1.0 - share, cases)
    alone = replace(model, encoder_layers=np.zeros(1))
    length = np.maximum(cases.encoder_seq_len, 1.0)  # of a case without an encoder, whose share is zero
    yield Half("encoder ", share, replace(cases, model=alone, seq_len=length, causal=np.zeros(1)))


def average(cases: Cases, formula: Callable[[Cases], Array]) -> Array:
    """Return the mean of a formula over the layers of both halves."""
    return sum((half.share * formula(half.cases) for half in halves(cases)), start=np.zeros(1))


def largest(cases: Cases, formula: Callable[[Cases], Array]) -> Array:
    """Return the larger value of a formula of the two halves; of cases without an encoder that of the decoder."""
    decoder, *encoder = [(half.share, formula(half.cases)) for half in halves(cases)]
    found = decoder[1]
    for share, value in encoder:
        found = np.maximum(found, np.where(share > 0, value, 0.0))
    return found
