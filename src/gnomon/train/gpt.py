"""A decoder-only transformer built from a `ModelSpec`: GPT-2, Llama and Mixtral styles and what lies between."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.errors import SpecError
from gnomon.spec import ModelSpec
from gnomon.train.feed_forward import MLP
from gnomon.train.moe import Experts, MoE


class GPT(nn.Module):
    """Tokens (batch, sequence) of int64 to logits (batch, sequence, vocabulary).

    The residual stream stays in the dtype of the weights; autocast lowers the matrix products and the attention.
    Raises SpecError for what it does not build: latent attention, sliding windows, sinks.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        refuse_unsupported(spec)
        self.spec = spec
        self.token_embedding = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.position_embedding = (
            nn.Embedding(spec.max_seq_len, spec.hidden_size) if spec.position == "learned" else None
        )
        self.blocks = nn.ModuleList(Block(spec, index) for index in range(spec.num_layers))
        self.final_norm = make_norm(spec, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied_embeddings:
            self.head.weight = self.token_embedding.weight
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", "down.weight", "experts.down")):
                nn.init.normal_(parameter, std=0.02 / (2 * spec.num_layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at every position."""
        x = self.embed(tokens)
        rotation = self.rotation(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x, rotation)
        return self.head(self.final_norm(x))

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the embedded tokens (batch, sequence), with the learned positions added where the model has them.

        `positions` (sequence,) are those of the tokens in the whole sequence; None: from the first one on.
        """
        x = self.token_embedding(tokens)
        if self.position_embedding is None:
            return x
        if positions is None:
            return x + self.position_embedding.weight[: tokens.shape[1]]  # a slice costs less than a look-up
        return x + self.position_embedding(positions[None])

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the cosines and sines (sequence, head_dim / 2) of rotary positions (arXiv 2104.09864), or None."""
        if self.spec.position != "rope":
            return None
        half = self.spec.head_dim // 2
        frequencies = 10000.0 ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = torch.outer(positions.float(), frequencies)
        return angles.cos(), angles.sin()


class Block(nn.Module):
    """Pre-normalised attention and feed-forward, each added to the residual stream."""

    def __init__(self, spec: ModelSpec, index: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec, spec.hidden_size)
        self.attention = Attention(spec)
        self.mlp_norm = make_norm(spec, spec.hidden_size)
        is_dense = spec.moe is None or index < spec.moe.num_dense_layers
        self.mlp = MLP(spec, spec.ffn_hidden_size, spec.mlp_bias) if is_dense else MoE(spec)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return x (batch, sequence, hidden) after both sub-layers."""
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal multi-head or grouped-query attention.

    The rows of `qkv` lie by groups: the query heads that share a key head, that key head, its value head. Whole groups
    can therefore be taken from it in equal parts, and a checkpoint does not depend on how many.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.head_dim = spec.head_dim
        self.queries_per_group = spec.num_heads // spec.num_kv_heads
        self.qkv = nn.Linear(spec.hidden_size, spec.query_size + 2 * spec.kv_size, bias=spec.attention_bias)
        self.output = nn.Linear(spec.query_size, spec.hidden_size, bias=spec.attention_output_bias)
        self.query_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.key_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.core: nn.Module = CausalAttention()

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the attention output (batch, sequence, hidden)."""
        groups = self.qkv(x).unflatten(-1, (-1, self.queries_per_group + 2, self.head_dim))
        # split, because the backward pass of slices would fill and add a whole tensor for each
        query, key, value = (part.flatten(2, 3) for part in groups.split((self.queries_per_group, 1, 1), dim=3))
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query.float()).to(value.dtype), self.key_norm(key.float()).to(value.dtype)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        result = self.core(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.output(result.transpose(1, 2).flatten(2))


class CausalAttention(nn.Module):
    """The framework's fused kernel, for sequences that one rank has from beginning to end."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the result (batch, heads, sequence, head_dim); `key` and `value` may have fewer heads."""
        shared = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=shared)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Return x (batch, sequence, heads, head_dim) rotated by its position, in its own dtype."""
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine[:, None, :].to(x.dtype), sine[:, None, :].to(x.dtype)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def make_norm(spec: ModelSpec, size: int) -> nn.Module:
    """Return the normalisation layer that the spec asks for."""
    return nn.RMSNorm(size, eps=1e-6) if spec.norm == "rmsnorm" else nn.LayerNorm(size, bias=spec.norm_bias)


def refuse_unsupported(spec: ModelSpec) -> None:
    """Raise SpecError naming the first feature of `spec` that `GPT` does not build."""
    found = {
        "mla": spec.mla is not None,
        "sliding_window": spec.num_sliding_window_layers > 0,
        "attention_sinks": spec.attention_sinks,
        "parallel_block": spec.parallel_block,
        "num_norms_per_layer": spec.num_norms_per_layer != 2,
        "num_mtp_layers": spec.num_mtp_layers > 0,
    }
    for feature, present in found.items():
        if present:
            raise SpecError(
                f"Model '{spec.name}' has {feature}={getattr(spec, feature)}, which the GPT trainer does not build. "
                "It trains decoders with full attention, dense or with experts; gnomon plan can still count its "
                "parameters."
            )
    if spec.moe is not None and spec.moe.selection_bias:
        raise SpecError(
            f"Model '{spec.name}' has moe.selection_bias=true, a bias that balances the experts, which the GPT trainer "
            "does not update. Set moe.selection_bias=false; gnomon plan can still count its parameters."
        )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
    if isinstance(module, Experts):
        for name, parameter in module.named_parameters(recurse=False):
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=0.02)
