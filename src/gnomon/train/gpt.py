"""A decoder-only transformer built from a `ModelSpec`: GPT-2, Llama, Mixtral, DeepSeek-V2 and what lies between."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gnomon.errors import SpecError
from gnomon.spec import ModelSpec
from gnomon.spec.layout import Recompute
from gnomon.train.block import Block, recompute_of
from gnomon.train.moe import Experts
from gnomon.train.normalisation import make_norm


class GPT(nn.Module):
    """Tokens (batch, sequence) of int64 to logits (batch, sequence, vocabulary).

    The residual stream stays in the dtype of the weights; autocast lowers the matrix products and the attention.
    `recompute` is what a `recompute_share` of the layers computes again in the backward pass instead of keeping it.
    Raises SpecError for what it does not build, such as attention sinks.
    """

    def __init__(self, spec: ModelSpec, recompute: Recompute = "none", recompute_share: float = 1.0) -> None:
        super().__init__()
        refuse_unsupported(spec)
        self.spec = spec
        self.token_embedding = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.position_embedding = (
            nn.Embedding(spec.max_seq_len, spec.hidden_size) if spec.position == "learned" else None
        )
        self.blocks = nn.ModuleList(
            Block(spec, index, recompute_of(index, spec.num_layers, recompute, recompute_share))
            for index in range(spec.num_layers)
        )
        self.final_norm = make_norm(spec, spec.hidden_size)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tied_embeddings:
            self.head.weight = self.token_embedding.weight
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            if name.endswith(("attention.output.weight", ".down.weight", "experts.down")):
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
        """Return the cosines and sines (sequence, width / 2) of rotary positions (arXiv 2104.09864), or None."""
        if self.spec.position != "rope":
            return None
        half = (self.spec.mla.qk_rope_head_dim if self.spec.mla else self.spec.head_dim) // 2
        frequencies = 10000.0 ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
        angles = torch.outer(positions.float(), frequencies)
        return angles.cos(), angles.sin()


def refuse_unsupported(spec: ModelSpec) -> None:
    """Raise SpecError naming the first feature of `spec` that `GPT` does not build."""
    found = {
        "encoder": spec.encoder is not None,
        "diffusion": spec.diffusion is not None,
        "position": spec.position == "relative",
        "attention_sinks": spec.attention_sinks,
        "num_norms_per_layer": spec.num_norms_per_layer not in ((1, 2) if spec.parallel_block else (2, 4)),
        "num_mtp_layers": spec.num_mtp_layers > 0,
    }
    for feature, present in found.items():
        if present:
            raise SpecError(
                f"Model '{spec.name}' has {feature}={getattr(spec, feature)}, which the GPT trainer does not build. "
                "gnomon plan can still price it."
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
