"""What one micro-batch costs a rank in one layer, in the embedding and in the head.

It depends on how a layer is split (tp, cp, ep, expert_tp) and on the micro-batch alone: not on the pipeline, on data
parallelism, on what is sharded or computed again. A search prices the few different ones once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.communication import exposed_s, layer_traffic, repeated_sums, window_s
from gnomon.plan.flops import model_flops_per_token
from gnomon.plan.memory import LayerBytes, layer_bytes
from gnomon.plan.operators import micro_batch_operators
from gnomon.plan.price import PricedOperator, Work, price, work_at
from gnomon.plan.rates import MeasuredRates, lookup

TOKEN_BYTES = 16  # one int64 token and its int64 target


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """Seconds of one average layer (`layer`), of the embedding (`first`) and of the head (`last`) for one micro-batch.

    `waits[pass]` is what a layer waits for its tensor-, context- and expert-parallel collectives in the forward and
    the backward pass, `waits[pass]["paired"]` what it waits for its experts where a schedule pairs passes so that one
    computes while the other sends, `collectives` how many it launches per pass, `repeated_sums` the part of the
    forward's tensor-parallel sums that recomputation repeats. `data_s` is the host's time to make the micro-batch.
    `token_flops` are the model's FLOPs per token.
    """

    operators: tuple[PricedOperator, ...]
    layer: Work
    first: Work
    last: Work
    waits: dict[str, dict[str, Array]]
    collectives: Array
    repeated_sums: Array
    data_s: Array
    token_flops: Array
    bytes: LayerBytes


def layer_work(cases: Cases) -> LayerWork:
    """Price the operators and collectives of one layer, of embedding and of head."""
    priced = tuple(price(operator, cases) for operator in micro_batch_operators(cases))
    layer, first, last = work_at(priced, "layer"), work_at(priced, "first"), work_at(priced, "last")
    storage, traffic = cases.storage, layer_traffic(cases)
    forward, backward = layer.passes["forward"], layer.passes["input"] + layer.passes["weight"]
    attention = layer.attention
    waits: dict[str, dict[str, Array]] = {}
    ahead, behind = layer.stalls - layer.stalls_backward, layer.stalls_backward
    for name, window, inner in (
        ("forward", window_s(cases, forward, ahead), attention),
        ("backward", window_s(cases, backward, behind), 2.5 * attention),
    ):
        tensor, context, expert = (getattr(traffic, f"{kind}_{name}") for kind in ("tensor", "context", "expert"))
        waits[name] = {
            "tensor": (1.0 - storage.overlap_tensor) * tensor,
            "context": exposed_s(context, np.zeros(1), inner, storage.overlap_context),
            "expert": exposed_s(expert, np.zeros(1), window, storage.overlap_expert),
            "paired": exposed_s(expert, np.zeros(1), window, np.ones(1)),
        }
    return LayerWork(
        operators=priced,
        layer=layer,
        first=first,
        last=last,
        waits=waits,
        collectives=traffic.calls,
        repeated_sums=repeated_sums(cases),
        data_s=_data_s(cases),
        token_flops=model_flops_per_token(
            cases.model, cases.seq_len, cases.causal, cases.encoder_seq_len, np.minimum(cases.imbalance, 1.0)
        ),
        bytes=layer_bytes(cases),
    )


def _data_s(cases: Cases) -> Array:
    """Return the time to make one micro-batch, where it was measured; other loaders cost the step nothing."""
    if not isinstance(cases.rates, MeasuredRates) or "data" not in cases.rates.efficiency.memory:
        return np.zeros(1)
    size = cases.tokens * TOKEN_BYTES
    curve, _ = lookup(cases.rates.efficiency.memory, "data", cases.precision, "data")
    return size / curve.at(size)
