"""Which windows of the text make each batch: a pure function of the seed and the step, the same for any ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gnomon.errors import DataError

Windows = NDArray[np.int64]


def epoch_order(num_samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of `num_samples` samples in an epoch, drawn from (seed, epoch)."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    return generator.permutation(num_samples)


def accumulation_of(global_batch: int, micro_batch: int, world_size: int) -> int:
    """Return the micro-batches per step and rank; raise DataError if the global batch does not divide."""
    if global_batch % (micro_batch * world_size):
        raise DataError(
            f"global_batch={global_batch} does not divide by micro_batch={micro_batch} x {world_size} rank(s). "
            f"Set global_batch to a multiple of {micro_batch * world_size}."
        )
    return global_batch // (micro_batch * world_size)


class WindowSampler:
    """Deals every window once per epoch, in an order drawn from (seed, epoch); an incomplete last batch is left out.

    The batch of a step is cut into blocks of `micro_batch` windows, and rank r takes the blocks
    r * accumulation to (r + 1) * accumulation - 1. One rank with two micro-batches and two ranks with one
    therefore see the same micro-batches.
    """

    def __init__(
        self,
        num_windows: int,
        global_batch: int,
        micro_batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        accumulation = accumulation_of(global_batch, micro_batch, world_size)
        if num_windows < global_batch:
            raise DataError(
                f"global_batch={global_batch}, but the text makes only {num_windows} sequences. "
                "Give more text, or lower global_batch or seq_len."
            )
        self.num_windows = num_windows
        self.global_batch = global_batch
        self.micro_batch = micro_batch
        self.accumulation = accumulation
        self.rank = rank
        self.seed = seed
        self.epoch = 0
        self.position = 0
        self._order: tuple[int, Windows] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one epoch."""
        return self.num_windows // self.global_batch

    def next_step(self) -> Windows:
        """Return the windows (accumulation, micro_batch) of this rank's next step and move on."""
        start = self.position * self.global_batch + self.rank * self.accumulation * self.micro_batch
        chosen = self._permutation()[start : start + self.accumulation * self.micro_batch]
        self.position += 1
        if self.position == self.steps_per_epoch:
            self.epoch, self.position = self.epoch + 1, 0
        return chosen.reshape(self.accumulation, self.micro_batch)

    def state_dict(self) -> dict[str, int]:
        """Return where the next step starts: {"epoch", "position"} with the position in steps."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from a state; raise DataError if this text has no such position."""
        if not (state["epoch"] >= 0 and 0 <= state["position"] < self.steps_per_epoch):
            raise DataError(
                f"The saved position {state} is outside the text, which has {self.steps_per_epoch} steps per epoch. "
                "The text or the batch is not the one that the checkpoint was made with."
            )
        self.epoch, self.position = state["epoch"], state["position"]

    def _permutation(self) -> Windows:
        if self._order is None or self._order[0] != self.epoch:
            self._order = (self.epoch, epoch_order(self.num_windows, self.seed, self.epoch))
        return self._order[1]
