"""Bytes of the key-value cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gnomon.plan.arrays import Array
from gnomon.spec import ModelSpec


def kv_elements(model: ModelSpec, tp: int = 1) -> float:
    """Return the elements that one layer caches for one token on one of `tp` ranks.

    Keys and values of every key head (multi-head, grouped-query or multi-query attention: Shazeer, arXiv 1911.02150;
    Ainslie et al., 2305.13245), which tensor parallelism divides until each rank holds one. Latent attention
    (DeepSeek-V2, arXiv 2405.04434, table 1) caches the latent and the rotary key, which every rank needs whole.
    """
    if model.mla is not None:
        return float(model.mla.kv_lora_rank + model.mla.qk_rope_head_dim)
    return 2.0 * max(model.num_kv_heads / tp, 1.0) * model.head_dim


def kv_bytes_per_token(model: ModelSpec, element_bytes: float = 2.0) -> float:
    """Return the bytes that one more token of context adds over all layers, before any sliding window is full."""
    return model.num_layers * kv_elements(model) * element_bytes


def cached_tokens(model: ModelSpec, context: ArrayLike) -> Array:
    """Return the tokens that an average layer keeps of `context`: windowed layers keep their window at most."""
    length = np.asarray(context, dtype=np.float64)
    if model.sliding_window is None:
        return length
    share = model.num_sliding_window_layers / model.num_layers
    return (1.0 - share) * length + share * np.minimum(length, model.sliding_window)


def kv_cache_bytes(model: ModelSpec, context: ArrayLike, element_bytes: float = 2.0) -> Array:
    """Return the bytes of the cache of one sequence of `context` tokens over all layers."""
    return np.asarray(kv_bytes_per_token(model, element_bytes) * cached_tokens(model, context))
