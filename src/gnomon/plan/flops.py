"""FLOPs that a model needs, counted operator by operator (a multiply-add is two)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gnomon.spec import ModelSpec, Workload

Array = NDArray[np.float64]


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


def layer_matmuls(model: ModelSpec) -> dict[str, tuple[int, int]]:
    """Return {name: (n, k)} of the matrix products of one dense layer; m is the number of tokens."""
    up = model.ffn_hidden_size * (2 if model.gated_mlp else 1)
    return {
        "qkv projection": (model.query_size + 2 * model.kv_size, model.hidden_size),
        "attention output": (model.hidden_size, model.query_size),
        "mlp up": (up, model.hidden_size),
        "mlp down": (model.hidden_size, model.ffn_hidden_size),
    }


def model_flops_per_step(model: ModelSpec, tokens: ArrayLike, seq_len: ArrayLike, causal: bool) -> Array:
    """Return forward and backward FLOPs for `tokens` tokens in sequences of `seq_len`, without recomputation.

    Backward counts twice the forward. Embedding lookups and elementwise work count nothing.
    """
    tokens = np.asarray(tokens, dtype=np.float64)
    length = np.asarray(seq_len, dtype=np.float64)
    per_layer = sum((matmul_flops(tokens, n, k) for n, k in layer_matmuls(model).values()), np.zeros(()))
    attention = attention_flops(tokens / length, length, model.query_size, causal)
    head = matmul_flops(tokens, model.vocab_size, model.hidden_size)
    return 3.0 * (model.num_layers * (per_layer + attention) + head)


def model_flops(model: ModelSpec, workload: Workload) -> float:
    """Return the model FLOPs of one optimizer step over all ranks (dense models)."""
    causal = workload.attention_mask == "causal"
    return float(model_flops_per_step(model, workload.tokens_per_step, workload.seq_len, causal))
