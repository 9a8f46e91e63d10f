"""Noise for a flow: there is no data set, the physics is in the action."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class NoiseLoader:
    """Endless micro-batches (micro_batch, size, size) of unit normal noise, drawn from (seed, step).

    The noise of a step is that of the whole batch, of which this rank takes its part: any number of ranks sees the
    same numbers, and so does a run that is resumed. `accumulation` micro-batches make a step.
    """

    def __init__(
        self, size: int, batch: int, *, shard: int, shards: int, accumulation: int, seed: int, first_step: int = 0
    ) -> None:
        self._shape = (batch, size, size)
        self._part = slice(shard * batch // shards, (shard + 1) * batch // shards)
        self._accumulation = accumulation
        self._seed = seed
        self.step = first_step

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            generator = torch.Generator().manual_seed(self._seed * 2**32 + self.step)
            self.step += 1
            yield from torch.randn(self._shape, generator=generator)[self._part].chunk(self._accumulation)

    def state_dict(self) -> dict[str, int]:
        """Return the number of the next step."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with that step; an iteration that has begun goes on from there as well."""
        self.step = state["step"]
