"""FLOPs that a model needs, counted operator by operator (a multiply-add is two)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gnomon.plan.arrays import Array, array
from gnomon.plan.cases import Cases
from gnomon.plan.sizes import PRODUCTS, ModelSizes, mean_keys
from gnomon.spec import ModelSpec, Workload

NONE, ONE = np.zeros(1), np.ones(1)


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


def step_tokens(cases: Cases) -> Array:
    """Return the tokens of one step over all ranks; those that an encoder reads are not among them."""
    return cases.micro_batch * cases.accumulation * cases.split.dp * cases.seq_len


def model_flops_per_token(
    model: ModelSizes, seq_len: Array, causal: Array, encoder_seq_len: Array = NONE, routed: Array = ONE
) -> Array:
    """Return forward and backward FLOPs of one token in sequences of `seq_len`, without recomputation.

    Backward counts twice the forward; of routed experts those that a token is sent to; attention over the tokens
    that its mask and windows leave (half the square when causal). Embedding lookups and elementwise work count
    nothing. One multi-token-prediction module counts as one layer, its projection and the head. Where an encoder reads
    `encoder_seq_len` tokens per sequence, a token of the decoder carries its share of them. `routed` is the share of
    the tokens' experts that have room for them.
    """
    read, encoder = encoder_seq_len / seq_len, model.encoder_layers
    decoder = model.num_layers - encoder
    both = decoder + read * encoder
    layers = {
        "attention": both,
        "dense": model.dense_layers - encoder + read * encoder,
        "moe": model.moe_layers,
        "expert": model.moe_layers * model.top_k * routed,
        "cross": decoder,
        "memory": decoder * read,
        "condition": model.num_layers / seq_len,
    }
    products = np.zeros(1)
    for name, (n, k) in model.products.items():
        products = products + 2.0 * n * k * layers[PRODUCTS[name][1]]
    keys = mean_keys(model, seq_len, causal)
    met = decoder * (keys + (encoder > 0) * encoder_seq_len) + encoder * read * encoder_seq_len
    attention = 2.0 * met * model.heads * (model.head_dim + model.value_dim)
    head = 2.0 * model.vocab * model.hidden
    module = (products + attention) / model.num_layers + head + 4.0 * model.hidden * model.hidden
    return 3.0 * (products + attention + head + model.mtp_layers * module)


def model_flops(model: ModelSpec, workload: Workload) -> float:
    """Return the model FLOPs of one optimizer step over all ranks."""
    causal, read = array(workload.attention_mask == "causal"), array(workload.encoder_seq_len or 0)
    routed = array(min(workload.capacity_factor or 1.0, 1.0))
    per_token = model_flops_per_token(ModelSizes.of(model), array(workload.seq_len), causal, read, routed)
    return float(workload.tokens_per_step * per_token[0])


def model_flops_per_step(model: ModelSpec, tokens: ArrayLike, seq_len: ArrayLike, causal: bool) -> Array:
    """Return forward and backward FLOPs for `tokens` tokens in sequences of `seq_len`, without recomputation."""
    length = np.asarray(seq_len, dtype=np.float64)
    per_token = model_flops_per_token(ModelSizes.of(model), length, np.asarray(float(causal)))
    return np.asarray(tokens, dtype=np.float64) * per_token.reshape(np.shape(length))
