"""The operators of prefill and decode: the forward operators of the training engine, with what they read told apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gnomon.plan.arrays import Array, array
from gnomon.plan.cases import Cases
from gnomon.plan.inference.cache import cached_tokens, kv_elements
from gnomon.plan.inference.experts import expected_distinct_experts
from gnomon.plan.operator import Operator
from gnomon.plan.operators import micro_batch_operators
from gnomon.plan.sizes import PRODUCTS
from gnomon.spec import ModelSpec

LOSS = "loss"
HEAD = "head"
ATTENTION = "attention"
DECODE_ATTENTION_KERNELS = 2.0  # partial attention over pieces of the cache, and their combination (flash-decoding)


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Bytes per element as stored: of the layers' matrices, of their operands' activations, and of the cache."""

    weights: float
    operands: float
    cache: float


@dataclass(frozen=True, kw_only=True)
class ServingOperator:
    """A forward operator, and how many of the bytes of each call are weights or cached keys and values."""

    operator: Operator
    weight_bytes: Array
    cache_bytes: Array


def prefill_operators(cases: Cases, sizes: Bytes) -> list[ServingOperator]:
    """Return the operators of one pass over whole prompts; only the last token of each reaches the head."""
    whole = [o for o in _forward(cases) if o.place != "last"]
    last = [o for o in _forward(one_token(cases)) if o.place == "last"]
    return [_told_apart(cases, o, sizes) for o in whole] + [_told_apart(one_token(cases), o, sizes) for o in last]


def decode_operators(cases: Cases, sizes: Bytes, model: ModelSpec, tp: int, context: float) -> list[ServingOperator]:
    """Return the operators of one new token for each sequence, with `context` tokens in its cache."""
    one = one_token(cases)
    others = [_told_apart(one, o, sizes) for o in _forward(one) if o.name != ATTENTION]
    return [*others, _decode_attention(one, sizes, model, tp, context)]


def one_token(cases: Cases) -> Cases:
    """Return the same sequences with a single token each."""
    return replace(cases, seq_len=array(1.0))


def _forward(cases: Cases) -> list[Operator]:
    return [o for o in micro_batch_operators(cases) if o.phase == "forward" and o.name != LOSS]


def _told_apart(cases: Cases, operator: Operator, sizes: Bytes) -> ServingOperator:
    none = np.zeros(1)
    if operator.curve != "matmul":
        return ServingOperator(operator=operator, weight_bytes=none, cache_bytes=none)
    m, n, k, groups = operator.point
    element = sizes.weights
    operand = sizes.operands
    if operator.name == HEAD:
        element = operand = float(cases.storage.compute_bytes[0])
    elif PRODUCTS[operator.name][1] == "expert":
        m, groups = _touched(cases)
    weights = groups * n * k * element
    traffic = weights + groups * m * (k * operand + n * cases.storage.compute_bytes)
    product = replace(operator, point=(m, n, k, groups), traffic_bytes=traffic)
    return ServingOperator(operator=product, weight_bytes=weights, cache_bytes=none)


def _touched(cases: Cases) -> tuple[Array, Array]:
    """Return (tokens per expert, distinct experts) of the busiest rank.

    The tokens of all ranks that hold copies of the same experts between them choose among those experts.
    """
    model, split = cases.model, cases.split
    pool = cases.tokens * split.ep * split.expert_tp / split.tp
    held = model.experts / split.ep
    distinct = expected_distinct_experts(model.experts, model.top_k, pool) / split.ep
    distinct = np.minimum(held, np.maximum(distinct * cases.imbalance, 1e-9))
    return cases.routed_tokens / distinct, distinct


def _decode_attention(cases: Cases, sizes: Bytes, model: ModelSpec, tp: int, context: float) -> ServingOperator:
    """Return attention of one query per sequence over its cache, which it reads once (Pope et al., arXiv 2211.05102).

    With latent attention the up projections are absorbed into queries and outputs: every head attends to the same
    latent (arXiv 2405.04434, section 2.1.2).
    """
    width = model.head_dim * 2.0
    if model.mla is not None:
        width = 2.0 * model.mla.kv_lora_rank + model.mla.qk_rope_head_dim
    keys = float(cached_tokens(model, context))
    cache = cases.tokens * keys * kv_elements(model, tp) * sizes.cache
    queries = cases.tokens * cases.model.heads / tp * width * cases.storage.compute_bytes
    operator = Operator(
        name=ATTENTION,
        phase="forward",
        place="layer",
        term="attention_s",
        curve="attention",
        key="forward",
        calls=array(1.0),
        flops=2.0 * cases.tokens * keys * cases.model.heads / tp * width,
        traffic_bytes=cache + queries,
        point=(array(max(keys, 1.0)), cases.model.head_dim),
        kernels=DECODE_ATTENTION_KERNELS,
    )
    return ServingOperator(operator=operator, weight_bytes=np.zeros(1), cache_bytes=cache)
