"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.spec import ModelSpec
from gnomon.train.attention import CausalAttention, attend, rotate
from gnomon.train.normalisation import make_norm


class LatentAttention(nn.Module):
    """Causal attention whose keys and values, and queries where `q_lora_rank` is set, come from narrow latents.

    A part of each query, and one key that all heads share, carry the rotary positions. `shared_key` and the names of
    the projections are where ranks that split the heads exchange what they need.
    """

    def __init__(self, spec: ModelSpec, window: int | None = None) -> None:
        super().__init__()
        mla = spec.mla
        assert mla is not None  # only built for specs with latents
        self.sizes = mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
        self.rank = mla.kv_lora_rank
        nope, rope, value = self.sizes
        queries = spec.num_heads * (nope + rope)
        narrow = mla.q_lora_rank
        self.query_down = nn.Linear(spec.hidden_size, narrow, bias=spec.attention_bias) if narrow else None
        self.query_latent_norm = make_norm(spec, narrow) if narrow else None
        self.query_up = nn.Linear(narrow or spec.hidden_size, queries, bias=False)
        self.key_value_down = nn.Linear(spec.hidden_size, self.rank + rope, bias=spec.attention_bias)
        self.latent_norm = make_norm(spec, self.rank)
        self.key_value_up = nn.Linear(self.rank, spec.num_heads * (nope + value), bias=False)
        self.shared_key = nn.Identity()
        self.output = nn.Linear(spec.num_heads * value, spec.hidden_size, bias=spec.attention_output_bias)
        self.core: nn.Module = CausalAttention(window)
        self.recomputes_core = False

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the attention output (batch, sequence, hidden)."""
        nope, rope, value_size = self.sizes
        latent = x
        if self.query_down is not None and self.query_latent_norm is not None:
            latent = self.query_latent_norm(self.query_down(x))
        query = self.query_up(latent).unflatten(-1, (-1, nope + rope))
        latent, shared = self.key_value_down(x).split((self.rank, rope), dim=-1)
        heads = self.key_value_up(self.latent_norm(latent)).unflatten(-1, (-1, nope + value_size))
        key, value = heads.split((nope, value_size), dim=-1)
        shared = self.shared_key(shared)[:, :, None]
        if rotation is not None:
            plain, turned = query.split((nope, rope), dim=-1)
            query = torch.cat([plain, rotate(turned, *rotation)], dim=-1)
            shared = rotate(shared, *rotation)
        key = torch.cat([key, shared.expand(-1, -1, key.shape[2], -1)], dim=-1)
        # fused kernels want heads of one width: zeros change no score, but the kernels' division by the root of it
        width = max(nope + rope, value_size)
        parts = query * (width / (nope + rope)) ** 0.5, key, value
        attended = attend(self.core, self.recomputes_core, *(F.pad(x, (0, width - x.shape[-1])) for x in parts))
        return self.output(attended.unflatten(-1, (-1, width))[..., :value_size].flatten(2))
