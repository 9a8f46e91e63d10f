"""Batches of tokens and the tokens that follow them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gnomon.data.sampler import Windows, WindowSampler
from gnomon.data.text import Bytes


class TextLoader:
    """Endless micro-batches: tokens and targets, int64 (micro_batch, seq_len), targets one position ahead.

    The state is that of the sampler; take it between optimizer steps, when all micro-batches of a step were drawn.
    """

    def __init__(self, tokens: Bytes, sampler: WindowSampler, seq_len: int, pin_memory: bool = False) -> None:
        self.sampler = sampler
        self._tokens = tokens
        self._seq_len = seq_len
        self._offsets = np.arange(seq_len + 1)
        self._pin_memory = pin_memory  # a copy to CUDA from pageable memory would wait for the queue of kernels
        self._blocks: Iterator[Windows] = iter(())

    def __iter__(self) -> TextLoader:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        block = next(self._blocks, None)
        if block is None:
            self._blocks = iter(self.sampler.next_step())
            block = next(self._blocks)
        window = torch.from_numpy(self._tokens[block[:, None] * self._seq_len + self._offsets].astype(np.int64))
        inputs, targets = window[:, :-1].contiguous(), window[:, 1:].contiguous()
        return (inputs.pin_memory(), targets.pin_memory()) if self._pin_memory else (inputs, targets)

    def state_dict(self) -> dict[str, int]:
        """Return the state of the sampler."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state of the sampler."""
        self.sampler.load_state_dict(state)
        self._blocks = iter(())
