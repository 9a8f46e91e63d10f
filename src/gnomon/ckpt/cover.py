"""Whether pieces of a tensor fill it, whatever their number of dimensions and their order."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from gnomon.ckpt.tensors import Shape
from gnomon.errors import CheckpointError

MAX_STEPS = 50_000_000


class Chunk(NamedTuple):
    """A piece of a tensor: where it begins in every dimension, and how far it reaches."""

    offsets: Shape
    sizes: Shape

    @property
    def is_empty(self) -> bool:
        """Return whether it holds no element."""
        return 0 in self.sizes


class Coverage:
    """Compares the pieces of many tensors with them; raises CheckpointError when that would take too long."""

    def __init__(self) -> None:
        self._left = MAX_STEPS

    def fills(self, chunks: Sequence[Chunk], shape: Shape) -> bool:
        """Return whether every element of a tensor of that shape lies in one of its pieces."""
        fitting = [chunk for chunk in chunks if len(chunk.offsets) == len(chunk.sizes) == len(shape)]
        return 0 in shape or self._fills(fitting, shape, 0)

    def _fills(self, chunks: Sequence[Chunk], shape: Shape, dimension: int) -> bool:
        """Cut a dimension where pieces begin or end: each slab must be filled in the dimensions that are left."""
        self._left -= len(chunks) + 1
        if self._left < 0:
            raise CheckpointError("The pieces of its tensors are too many, or too scattered, for gnomon to compare.")
        if dimension == len(shape) or not chunks:
            return bool(chunks)
        begins = sorted((chunk.offsets[dimension], index) for index, chunk in enumerate(chunks))
        active: list[tuple[int, int]] = []  # by where they end
        position = next_begin = 0
        while position < shape[dimension]:
            while active and active[0][0] <= position:
                heapq.heappop(active)
            while next_begin < len(begins) and begins[next_begin][0] <= position:
                index = begins[next_begin][1]
                end = begins[next_begin][0] + chunks[index].sizes[dimension]
                if end > position:
                    heapq.heappush(active, (end, index))
                next_begin += 1
            if not self._fills([chunks[index] for _, index in active], shape, dimension + 1):
                return False
            following = begins[next_begin][0] if next_begin < len(begins) else shape[dimension]
            position = min(active[0][0], following)
        return True
