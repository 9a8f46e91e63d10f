"""What the ranks of a served model send to each other for one token or prompt, all of it waited for."""

from __future__ import annotations

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.network import all_gather_s, all_reduce_s, all_to_all_s, group, links_share, send_s
from gnomon.plan.rates import MeasuredRates


def tensor_reduce_s(cases: Cases, direct: bool) -> Array:
    """Return the seconds to add up the hidden states of a pass over the tensor-parallel ranks.

    Two such sums per layer (Megatron-LM, arXiv 1909.08053). Inside one switch ranks read each other's memory `direct`,
    as the all-reduce kernels of TensorRT-LLM and vLLM do: all of it between two barriers (one-shot), or their part
    and then the sums of the others between three (two-shot). A ring or tree where that is faster.
    """
    split, network = cases.split, cases.network
    size = cases.tokens * cases.model.hidden * cases.storage.compute_bytes
    if isinstance(cases.rates, MeasuredRates):
        curve = cases.rates.efficiency.collectives.get("all_reduce")
        if curve is not None and np.all(split.tp == curve.ranks):
            return curve.time_s(size)
    ring = all_reduce_s(size, group(network, split.tp, np.ones_like(split.tp)))
    rate = network.bandwidth[0] * links_share(network, 0, split.tp, np.ones_like(split.tp))
    latency_s, others_s = network.latency_s[0], (split.tp - 1.0) * size / rate
    shots = np.minimum(2.0 * latency_s + others_s, 3.0 * latency_s + 2.0 * others_s / split.tp)
    within = direct & (split.tp > 1) & (split.tp <= network.span[0])
    return np.where(within, np.minimum(ring, shots), ring)


def layer_communication(cases: Cases, direct: bool) -> tuple[Array, Array]:
    """Return (seconds, collectives) of one average layer.

    Experts that only the tensor-parallel ranks hold need no exchange: every rank has all tokens, and the sum after
    the layer adds what each expert gives. Experts spread over replicas get their tokens through an all-to-all there
    and back, after which the tensor-parallel ranks gather their shares.
    """
    model, split = cases.model, cases.split
    reduce_s = tensor_reduce_s(cases, direct)
    moe = model.moe_layers / model.num_layers
    spread = (split.ep * split.expert_tp > split.tp) & (model.moe_layers > 0)
    size = cases.tokens * model.hidden * cases.storage.compute_bytes
    routed = cases.routed_tokens * model.hidden * cases.storage.compute_bytes
    exchange = 2.0 * all_to_all_s(routed, cases.network, split.ep, split.expert_tp)
    gather = all_gather_s(size, group(cases.network, split.tp, np.ones_like(split.tp)))
    shared = np.where(model.shared_ffn > 0, reduce_s, 0.0)
    experts = np.where(spread, exchange + gather + shared, reduce_s)
    feed_forward = (1.0 - moe) * reduce_s + moe * experts
    # a parallel block adds attention and feed-forward before it sums
    seconds = np.where(model.parallel_block > 0, reduce_s, reduce_s + feed_forward)
    calls = np.where(split.tp > 1, np.where(model.parallel_block > 0, 1.0, 2.0), 0.0) + 2.0 * moe * spread
    return seconds, calls


def stage_send_s(cases: Cases) -> Array:
    """Return the seconds to hand one pass's hidden states to the next pipeline stage, which lies beside it.

    Replicas are engines of their own: where they are changes nothing.
    """
    split = cases.split
    size = cases.tokens * cases.model.hidden * cases.storage.compute_bytes
    return send_s(size, cases.network, split.tp, split.pp)
