"""A dense decoder-only transformer built from a `ModelSpec`: GPT-2 and Llama styles and what lies between."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.errors import SpecError
from gnomon.spec import ModelSpec

_ACTIVATIONS = {"gelu": "none", "gelu_tanh": "tanh"}


class GPT(nn.Module):
    """Tokens (batch, sequence) of int64 to logits (batch, sequence, vocabulary).

    The residual stream stays in the dtype of the weights; autocast lowers the matrix products and the attention.
    Raises SpecError for what it does not build: mixture of experts, latent attention, sliding windows, sinks.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        refuse_unsupported(spec)
        self.spec = spec
        self.token_embedding = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.position_embedding = (
            nn.Embedding(spec.max_seq_len, spec.hidden_size) if spec.position == "learned" else None
        )
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.num_layers))
        self.final_norm = make_norm(spec, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied_embeddings:
            self.head.weight = self.token_embedding.weight
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", "mlp.down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * spec.num_layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next token at every position."""
        x = self.embed(tokens)
        rotation = self.rotation(tokens.shape[1], x)
        for block in self.blocks:
            x = block(x, rotation)
        return self.head(self.final_norm(x))

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embedded tokens, with learned positions added where the model has them."""
        x = self.token_embedding(tokens)
        if self.position_embedding is not None:
            x = x + self.position_embedding.weight[: tokens.shape[1]]
        return x

    def rotation(self, length: int, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the cosines and sines (sequence, head_dim / 2) of rotary positions (arXiv 2104.09864), or None."""
        if self.spec.position != "rope":
            return None
        half = self.spec.head_dim // 2
        frequencies = 10000.0 ** (-torch.arange(half, device=like.device, dtype=torch.float32) / half)
        angles = torch.outer(torch.arange(length, device=like.device, dtype=torch.float32), frequencies)
        return angles.cos(), angles.sin()


class Block(nn.Module):
    """Pre-normalised attention and feed-forward, each added to the residual stream."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.attention_norm = make_norm(spec, spec.hidden_size)
        self.attention = Attention(spec)
        self.mlp_norm = make_norm(spec, spec.hidden_size)
        self.mlp = MLP(spec)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return x (batch, sequence, hidden) after both sub-layers."""
        x = x + self.attention(self.attention_norm(x), rotation)
        return x + self.mlp(self.mlp_norm(x))


class Attention(nn.Module):
    """Causal multi-head or grouped-query attention through the framework's fused kernel."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = nn.Linear(spec.hidden_size, spec.query_size + 2 * spec.kv_size, bias=spec.attention_bias)
        self.output = nn.Linear(spec.query_size, spec.hidden_size, bias=spec.attention_output_bias)
        self.query_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None
        self.key_norm = make_norm(spec, spec.head_dim) if spec.qk_norm else None

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor] | None) -> Tensor:
        """Return the attention output (batch, sequence, hidden)."""
        batch, length, _ = x.shape
        query, key, value = (
            part.view(batch, length, -1, self.spec.head_dim)
            for part in self.qkv(x).split([self.spec.query_size, self.spec.kv_size, self.spec.kv_size], dim=-1)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query.float()).to(value.dtype), self.key_norm(key.float()).to(value.dtype)
        if rotation is not None:
            query, key = rotate(query, *rotation), rotate(key, *rotation)
        result = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            is_causal=True,
            enable_gqa=self.spec.num_kv_heads != self.spec.num_heads,
        )
        return self.output(result.transpose(1, 2).reshape(batch, length, self.spec.query_size))


class MLP(nn.Module):
    """The feed-forward layer, plain or gated (SwiGLU, GEGLU: arXiv 2002.05202)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        width = spec.ffn_hidden_size * (2 if spec.gated_mlp else 1)
        self.up = nn.Linear(spec.hidden_size, width, bias=spec.mlp_bias)
        self.down = nn.Linear(spec.ffn_hidden_size, spec.hidden_size, bias=spec.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the feed-forward output (batch, sequence, hidden)."""
        x = self.up(x)
        if self.spec.gated_mlp:
            gate, x = x.chunk(2, dim=-1)
            return self.down(activate(gate, self.spec.activation) * x)
        return self.down(activate(x, self.spec.activation))


def activate(x: Tensor, name: str) -> Tensor:
    """Return the activation `name` of x, elementwise."""
    if name in _ACTIVATIONS:
        return F.gelu(x, approximate=_ACTIVATIONS[name])
    return F.silu(x) if name == "silu" else F.relu(x)


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
        "moe": spec.moe is not None,
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
                "It trains dense decoders with full attention; gnomon plan can still count its parameters."
            )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
