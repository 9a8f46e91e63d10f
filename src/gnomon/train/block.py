"""One layer of a decoder: attention and feed-forward around the residual stream."""

from __future__ import annotations

from torch import Tensor, nn

from gnomon.spec import ModelSpec
from gnomon.spec.layout import Recompute
from gnomon.train.attention import Attention
from gnomon.train.feed_forward import MLP
from gnomon.train.latent_attention import LatentAttention
from gnomon.train.moe import MoE
from gnomon.train.normalisation import make_norm
from gnomon.train.recompute import recomputed

Rotation = tuple[Tensor, Tensor] | None


class Block(nn.Module):
    """Pre-normalised attention and feed-forward, one after the other or side by side, added to the residual stream.

    Side by side (GPT-NeoX) both read the same residual, through norms of their own or through one (PaLM). Four norms
    per layer also normalise what is added (Gemma 2, arXiv 2408.00118). `recompute` is what runs again in the backward
    pass instead of being kept.
    """

    def __init__(self, spec: ModelSpec, index: int, recompute: Recompute = "none") -> None:
        super().__init__()
        self.is_parallel, self.recomputes_all = spec.parallel_block, recompute == "full"
        self.attention_norm = make_norm(spec, spec.hidden_size)
        self.attention = (LatentAttention if spec.mla else Attention)(spec, window_of(spec, index))
        self.mlp_norm = make_norm(spec, spec.hidden_size) if spec.num_norms_per_layer > 1 else None
        self.mlp = MLP(spec, spec.ffn_hidden_size, spec.mlp_bias) if spec.is_dense(index) else MoE(spec)
        has_four = spec.num_norms_per_layer == 4
        self.attention_output_norm = make_norm(spec, spec.hidden_size) if has_four else None
        self.mlp_output_norm = make_norm(spec, spec.hidden_size) if has_four else None
        self.attention.recomputes_core = recompute == "selective"

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """Return x (batch, sequence, hidden) after both sub-layers."""
        return recomputed(self._compute, x, rotation) if self.recomputes_all else self._compute(x, rotation)

    def _compute(self, x: Tensor, rotation: Rotation) -> Tensor:
        normalised = self.attention_norm(x)
        attended = _normalised(self.attention(normalised, rotation), self.attention_output_norm)
        if self.is_parallel:
            return x + attended + self.mlp(normalised if self.mlp_norm is None else self.mlp_norm(x))
        x = x + attended
        return x + _normalised(self.mlp(_normalised(x, self.mlp_norm)), self.mlp_output_norm)


def window_of(spec: ModelSpec, index: int) -> int | None:
    """Return how many tokens layer `index` attends to; None: all.

    Layers with full attention lie at equal distances and the last one is such, as in Gemma 2 and 3 and GPT-OSS.
    """
    full = spec.num_layers - spec.num_sliding_window_layers
    return None if _is_chosen(index, full, spec.num_layers) else spec.sliding_window


def recompute_of(index: int, num_layers: int, recompute: Recompute, share: float) -> Recompute:
    """Return what layer `index` recomputes where a `share` of the layers do: a whole number of them, at least one."""
    return recompute if _is_chosen(index, max(1, round(share * num_layers)), num_layers) else "none"


def _is_chosen(index: int, chosen: int, of: int) -> bool:
    """Return whether `index` is one of `chosen` out of `of` that lie at equal distances, the last of all among them."""
    return (index + 1) * chosen // of > index * chosen // of


def _normalised(x: Tensor, norm: nn.Module | None) -> Tensor:
    if norm is None:
        return x
    output: Tensor = norm(x)
    return output
