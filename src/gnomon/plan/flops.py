"""FLOPs that a model needs, counted operator by operator (a multiply-add is two)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.sizes import PRODUCTS, ModelSizes, attended_tokens
from gnomon.spec import ModelSpec, Workload


def matmul_flops(m: ArrayLike, n: ArrayLike, k: ArrayLike) -> Array:
    """Return 2 m n k, the FLOPs of an (m, k) by (k, n) product."""
    return 2.0 * np.asarray(m, dtype=np.float64) * np.asarray(n, dtype=np.float64) * np.asarray(k, dtype=np.float64)


def attention_flops(batch: ArrayLike, seq_len: ArrayLike, query_size: int, causal: bool) -> Array:
    """Return the forward FLOPs of scores and values in one layer: 4 b s^2 q, halved by a causal mask.

    The exact causal factor is (s + 1) / 2s; 1/2 is the field's convention (PaLM, arXiv 2204.02311, appendix B,
    counts the full square). The backward pass needs twice the forward in model FLOPs.
    """
    length = np.asarray(seq_len, dtype=np.float64)
    full = 4.0 * np.asarray(batch, dtype=np.float64) * length * length * query_size
    return full / 2.0 if causal else full


def step_flops(cases: Cases) -> Array:
    """Return forward and backward FLOPs of one step over all ranks, without recomputation.

    Backward counts twice the forward; of routed experts those that a token is sent to; attention over the tokens
    that its mask and windows leave (half the square when causal). Embedding lookups and elementwise work count
    nothing. One multi-token-prediction module counts as one layer, its projection and the head.
    """
    model = cases.model
    tokens = cases.micro_batch * cases.accumulation * cases.split.dp * cases.seq_len
    return tokens * model_flops_per_token(model, cases.seq_len, cases.causal)


def model_flops_per_token(model: ModelSizes, seq_len: Array, causal: Array) -> Array:
    """Return forward and backward FLOPs of one token in sequences of `seq_len`."""
    share = {"dense": model.dense_layers, "moe": model.moe_layers, "expert": model.moe_layers * model.top_k}
    total_products = np.zeros(1)
    for name, (n, k) in model.products.items():
        total_products = total_products + 2.0 * n * k * share.get(PRODUCTS[name][1], model.num_layers)
    windowed = model.window_layers / model.num_layers
    keys = (1.0 - windowed) * attended_tokens(seq_len, np.zeros(1), causal) + windowed * attended_tokens(
        seq_len, model.window, causal
    )
    attention = 2.0 * keys * model.heads * (model.head_dim + model.value_dim)
    layer = total_products / model.num_layers + attention
    head = 2.0 * model.vocab * model.hidden
    module = layer + head + 4.0 * model.hidden * model.hidden
    return 3.0 * (model.num_layers * layer + head + model.mtp_layers * module)


def model_flops(model: ModelSpec, workload: Workload) -> float:
    """Return the model FLOPs of one optimizer step over all ranks."""
    causal = np.asarray([float(workload.attention_mask == "causal")])
    per_token = model_flops_per_token(ModelSizes.of(model), np.asarray([float(workload.seq_len)]), causal)
    return float(workload.tokens_per_step * per_token[0])


def model_flops_per_step(model: ModelSpec, tokens: ArrayLike, seq_len: ArrayLike, causal: bool) -> Array:
    """Return forward and backward FLOPs for `tokens` tokens in sequences of `seq_len`, without recomputation."""
    length = np.asarray(seq_len, dtype=np.float64)
    per_token = model_flops_per_token(ModelSizes.of(model), length, np.asarray(float(causal)))
    return np.asarray(tokens, dtype=np.float64) * per_token.reshape(np.shape(length))
