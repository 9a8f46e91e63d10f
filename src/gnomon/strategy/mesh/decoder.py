"""What the mesh needs of a model, and the parts of it that one rank runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gnomon.errors import ConfigError
from gnomon.spec import ModelSpec

Positions = Callable[[int, torch.device], Tensor]
"""The places in the whole sequence of the `length` tokens that this rank has."""


class Decoder(Protocol):
    """A decoder that can be split: `gnomon.train.gpt.GPT`, or a model with the same parts under the same names.

    Blocks take and return (batch, sequence, hidden). In a block: attention_norm, attention (qkv, output, query_norm,
    key_norm, or the projections of `gnomon.train.latent_attention.LatentAttention`, and core, which computes the
    attention itself), attention_output_norm, mlp_norm, mlp (up, down, or router, experts, shared, shared_gate and
    exchange, which brings tokens to their experts), mlp_output_norm.
    """

    spec: ModelSpec
    blocks: nn.ModuleList
    token_embedding: nn.Embedding | None
    position_embedding: nn.Embedding | None
    final_norm: nn.Module | None
    head: nn.Linear | None

    def embed(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Return the embedded tokens."""

    def rotation(self, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what the attention needs to know of positions, or None."""


def as_decoder(model: nn.Module) -> Decoder:
    """Return the model as a decoder; raise ConfigError if it lacks a part."""
    missing = [name for name in Decoder.__annotations__ if not hasattr(model, name)]
    missing += [name for name in ("embed", "rotation") if not hasattr(model, name)]
    if missing:
        raise ConfigError(
            f"strategy=mesh splits decoders such as gnomon.train.gpt.GPT; {type(model).__name__} has no {missing[0]}. "
            "Give it that part, or set tp, pp, cp and ep to 1."
        )
    return cast(Decoder, model)


class Chunk(nn.Module):
    """Consecutive blocks of a decoder, with the embedding before the first and the head after the last.

    Maps tokens or (batch, sequence, hidden) to (batch, sequence, hidden) or logits. `split` is the number of parts
    that tensor-parallel ranks cut the hidden states' sequence into. `autocast` is entered here where the trainer's own
    does not reach, and the logits are then this rank's part of the vocabulary as a plain tensor.
    """

    def __init__(
        self,
        decoder: Decoder,
        layers: Sequence[int],
        positions: Positions,
        split: int,
        autocast: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        super().__init__()
        self.is_first, self.is_last = 0 in layers, decoder.spec.num_layers - 1 in layers
        blocks = dict(decoder.blocks.named_children())
        self.blocks = nn.ModuleList(blocks[str(index)] for index in layers)
        # registered, so that whoever walks over the modules of this chunk finds all of its parameters
        needs_embedding = self.is_first or (self.is_last and decoder.spec.tied_embeddings)
        self.token_embedding = decoder.token_embedding if needs_embedding else None
        self.position_embedding = decoder.position_embedding if self.is_first else None
        self.final_norm = decoder.final_norm if self.is_last else None
        self.head = decoder.head if self.is_last else None
        self._embed, self._rotation = decoder.embed, decoder.rotation
        self._positions, self._split = positions, split
        self._autocast = autocast or nullcontext
        self._is_pipelined = autocast is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return the hidden states or the logits."""
        length = x.shape[1] if self.is_first else x.shape[1] * self._split
        positions = self._positions(length, x.device)
        with self._autocast():
            if self.is_first:
                x = self._embed(x, positions)
            rotation = self._rotation(positions)
            for block in self.blocks:
                x = block(x, rotation)
            if self.final_norm is not None and self.head is not None:
                x = self.head(self.final_norm(x))
        return x.to_local() if self._is_pipelined and isinstance(x, DTensor) else x


class SplitModel(nn.Module):
    """The chunks of one rank. `decoder` holds the same parameters under the names of the whole model."""

    def __init__(self, decoder: nn.Module, chunks: dict[int, Chunk]) -> None:
        super().__init__()
        self.decoder = decoder
        self.chunks = chunks  # by stage; a plain dict, because their parameters are the decoder's
        self.output: Tensor | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits: those that the pipeline has computed, or computed now where there is none."""
        return self.chunks[0](tokens) if self.output is None else self.output


def keep_stages(decoder: Decoder, stages: Mapping[int, Sequence[int]]) -> None:
    """Remove the parts of the decoder that none of this rank's stages (stage: layers) has."""
    kept = {str(layer) for layers in stages.values() for layer in layers}
    has_first = "0" in kept
    has_last = str(decoder.spec.num_layers - 1) in kept
    for name in [name for name, _ in decoder.blocks.named_children() if name not in kept]:
        delattr(decoder.blocks, name)  # the others keep their names
    if not has_first:
        decoder.position_embedding = None
    if not has_first and not (has_last and decoder.spec.tied_embeddings):
        decoder.token_embedding = None
    if not has_last:
        decoder.final_norm = decoder.head = None
