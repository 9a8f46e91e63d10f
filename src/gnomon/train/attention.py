"""Causal attention with heads of their own, shared key heads, and windows."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.spec import ModelSpec
from gnomon.train.normalisation import make_norm
from gnomon.train.recompute import recomputed


class Attention(nn.Module):
    """Causal multi-head or grouped-query attention.

    The rows of `qkv` lie by groups: the query heads that share a key head, that key head, its value head. Whole groups
    can therefore be taken from it in equal parts, and a checkpoint does not depend on how many. With `recomputes_core`
    the attention itself runs again in the backward pass instead of being kept.
    """

    def __init__(self, spec: ModelSpec, window: int | None = None) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.queries_per_group = spec.num_heads // spec.num_kv_heads
        self.qkv = nn.Linear(spec.hidden_size, spec.query_size + 2 * spec.kv_size, bias=spec.attention_bias)
        self.output = nn.Linear(spec.query_size, spec.hidden_size, bias=spec.attention_output_bias)
        self.query_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.key_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.core: nn.Module = CausalAttention(window)
        self.recomputes_core = False

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the attention output (batch, sequence, hidden)."""
        groups = self.qkv(x).unflatten(-1, (-1, self.queries_per_group + 2, self.head_dim))
        # split, because the backward pass of slices would fill and add a whole tensor for each
        query, key, value = (part.flatten(2, 3) for part in groups.split((self.queries_per_group, 1, 1), dim=3))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query.float()).to(value.dtype), self.key_norm(key.float()).to(value.dtype)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        return self.output(attend(self.core, self.recomputes_core, query, key, value))


def attend(core: nn.Module, recompute: bool, *parts: Tensor) -> Tensor:
    """Return `core` of query, key and value (batch, sequence, heads, width), its heads side by side."""
    query, key, value = (part.transpose(1, 2) for part in parts)
    result: Tensor = recomputed(core, query, key, value) if recompute else core(query, key, value)
    return result.transpose(1, 2).flatten(2)


class CausalAttention(nn.Module):
    """The framework's kernel, for sequences that one rank has from beginning to end.

    With a `window` each token attends to itself and the `window` - 1 tokens before it (arXiv 2004.05150).
    """

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the result (batch, heads, sequence, value width); `key` and `value` may have fewer heads."""
        shared, length = query.shape[1] != key.shape[1], query.shape[2]
        if self.window is None or self.window >= length:
            return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared)
        places = torch.arange(length, device=query.device)
        distance = places[:, None] - places[None]
        seen = (distance >= 0) & (distance < self.window)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, enable_gqa=shared)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return x (batch, sequence, heads, head_dim) rotated by its position, in its own dtype."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine[:, None, :].to(x.dtype), sine[:, None, :].to(x.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
