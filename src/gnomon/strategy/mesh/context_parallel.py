"""Context parallelism: each rank has a part of every sequence, and attention still looks at all of it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import ProcessGroup


class SequenceShard:
    """Which places of a sequence a rank has.

    All-to-all gives rank i the i-th of `ranks` pieces. The ring cuts 2 `ranks` pieces and gives rank i the i-th from
    the start and the i-th from the end: under a causal mask, all ranks then have equally much to do.
    """

    def __init__(self, rank: int, ranks: int, is_ring: bool) -> None:
        self._ranks = ranks
        self._pieces = (rank, 2 * ranks - 1 - rank) if is_ring and ranks > 1 else (rank,)

    def positions(self, length: int, device: torch.device) -> Tensor:
        """Return the places of this rank's `length` tokens in the whole sequence."""
        piece = length // len(self._pieces)
        return torch.cat([torch.arange(p * piece, (p + 1) * piece, device=device) for p in self._pieces])

    def take(self, batch: Any) -> Any:
        """Return this rank's part of each tensor (batch, sequence, ...) in a tuple or list of them, or of one."""
        if self._ranks == 1:
            return batch
        if isinstance(batch, Tensor):
            return batch.index_select(1, self.positions(batch.shape[1] // self._ranks, batch.device))
        return type(batch)([self.take(item) for item in batch])


class AllToAllAttention(nn.Module):
    """Trades the sequence for heads and back (DeepSpeed-Ulysses, arXiv 2309.14509): a rank has some heads, whole."""

    def __init__(self, group: ProcessGroup, core: nn.Module) -> None:
        super().__init__()
        self._group, self._core = group, core
        self._ranks = dist.get_world_size(group)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return the result (batch, heads, part of the sequence, head_dim) of `core` over whole sequences."""
        if key.shape[1] % self._ranks:  # too few key heads for all ranks: give each query head its own copy
            copies = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(copies, 1), value.repeat_interleave(copies, 1)
        query, key, value = (_to_heads(x, self._group, self._ranks) for x in (query, key, value))
        return _to_sequence(self._core(query, key, value), self._group, self._ranks)


def _to_heads(x: Tensor, group: ProcessGroup, ranks: int) -> Tensor:
    """Return (batch, heads / ranks, sequence, d) of (batch, heads, sequence / ranks, d)."""
    parts = x.unflatten(1, (ranks, -1)).movedim(1, 0)
    return _AllToAll.apply(parts, group).movedim(0, 2).flatten(2, 3)


def _to_sequence(x: Tensor, group: ProcessGroup, ranks: int) -> Tensor:
    """Return (batch, heads, sequence / ranks, d) of (batch, heads / ranks, sequence, d)."""
    parts = x.unflatten(2, (ranks, -1)).movedim(2, 0)
    return _AllToAll.apply(parts, group).movedim(0, 1).flatten(1, 2)


class _AllToAll(Function):
    """Part i of each rank goes to rank i; the gradients go the same way, since the exchange is its own inverse."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        parts = parts.contiguous()
        received = torch.empty_like(parts)
        dist.all_to_all_single(received, parts, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _AllToAll.apply(gradient, ctx.group), None
