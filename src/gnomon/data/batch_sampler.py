"""Which samples make each batch: a pure function of seed, epoch and position, the same for any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gnomon.data.sampler import accumulation_of, epoch_order
from gnomon.errors import DataError, did_you_mean

LAST_BATCH = ("drop", "pad")
_MAX_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One micro-batch: the first `num_real` of its `indices` are real samples, the others fill the batch up."""

    epoch: int
    indices: list[int]
    num_real: int


class GlobalBatchSampler:
    """Deals every sample once per epoch, in an order drawn from (seed, epoch), or in the dataset's order.

    The global batch of a step is the next `global_batch` samples. It is cut into blocks of `micro_batch`, and rank r
    takes the blocks r * accumulation to (r + 1) * accumulation - 1; so one rank with two micro-batches and two ranks
    with one see the same. `last` says what becomes of an incomplete last batch: "drop" leaves its samples out of this
    epoch, "pad" fills it up with samples from the start of the epoch, which do not count as real.
    """

    def __init__(
        self,
        num_samples: int,
        global_batch: int,
        micro_batch: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        last: Literal["drop", "pad"] = "drop",
    ) -> None:
        _check(num_samples, global_batch, micro_batch, rank, world_size, seed, last)
        self.accumulation = accumulation_of(global_batch, micro_batch, world_size)
        self.num_samples = num_samples
        self.global_batch = global_batch
        self.micro_batch = micro_batch
        self.rank = rank
        self.seed = seed
        self.shuffle = shuffle
        self.last = last
        self.epoch = 0
        self.position = 0
        self._order: tuple[int, NDArray[np.int64]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Global batches in one epoch."""
        whole, rest = divmod(self.num_samples, self.global_batch)
        return whole + (1 if rest and self.last == "pad" else 0)

    def requests(self) -> Iterator[BatchRequest]:
        """Yield this rank's micro-batches from the position to the end of the epoch; the position stays."""
        epoch = self.epoch
        for step in range(self.position // self.global_batch, self.steps_per_epoch):
            yield from self._step(epoch, step)

    def advance(self, steps: int) -> dict[str, Any]:
        """Return the state `steps` optimizer steps after the position."""
        position, epoch = self.position + steps * self.global_batch, self.epoch
        if position >= self.steps_per_epoch * self.global_batch:
            position, epoch = 0, epoch + 1
        described = {"num_samples": self.num_samples, "seed": self.seed, "shuffle": self.shuffle}
        return {"epoch": epoch, "position": position, **described}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state that `advance` returned; raise DataError if it belongs to other data or settings."""
        for name in ("num_samples", "seed", "shuffle"):
            if state.get(name) != getattr(self, name):
                raise DataError(
                    f"The checkpoint was made with {name}={state.get(name)}, and now it is {getattr(self, name)}: "
                    "the order of the samples would be another. Set it back, or start anew."
                )
        epoch, position = state["epoch"], state["position"]
        if position % self.global_batch:
            raise DataError(
                f"The checkpoint was made after {position} samples of the epoch, which is not a whole number of "
                f"batches of global_batch={self.global_batch}. Set global_batch to what it was, or to a divisor of it."
            )
        if not (epoch >= 0 and 0 <= position < self.steps_per_epoch * self.global_batch):
            raise DataError(
                f"The saved position (epoch {epoch}, sample {position}) is outside the data, of which an epoch has "
                f"{self.steps_per_epoch} steps of {self.global_batch} samples."
            )
        self.epoch, self.position = epoch, position

    def _step(self, epoch: int, step: int) -> Iterator[BatchRequest]:
        order = self._epoch_order(epoch)
        first = step * self.global_batch + self.rank * self.accumulation * self.micro_batch
        for start in range(first, first + self.accumulation * self.micro_batch, self.micro_batch):
            places = np.arange(start, start + self.micro_batch)
            num_real = int(np.clip(self.num_samples - start, 0, self.micro_batch))
            yield BatchRequest(epoch, order[places % self.num_samples].tolist(), num_real)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self._order is None or self._order[0] != epoch:
            shuffled = epoch_order(self.num_samples, self.seed, epoch) if self.shuffle else np.arange(self.num_samples)
            self._order = (epoch, shuffled)
        return self._order[1]


def _check(
    num_samples: int, global_batch: int, micro_batch: int, rank: int, world_size: int, seed: int, last: str
) -> None:
    """Raise DataError for settings that make no batches."""
    for name, value in (("micro_batch", micro_batch), ("world_size", world_size), ("global_batch", global_batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DataError(f"{name}={value!r}; set it to a whole number of at least 1.")
    if not 0 <= rank < world_size:
        raise DataError(f"rank={rank}, but ranks count from 0 to {world_size - 1} with world_size={world_size}.")
    if not 0 <= seed <= _MAX_SEED:
        raise DataError(f"seed={seed} is out of range. Choose a whole number from 0 to {_MAX_SEED}.")
    if last not in LAST_BATCH:
        raise DataError(f"last='{last}' is unknown. {did_you_mean(last, LAST_BATCH)}")
    if num_samples < 1:
        raise DataError("The dataset has no samples at all. Check its path and its selection.")
    if last == "drop" and num_samples < global_batch:
        raise DataError(
            f"global_batch={global_batch}, but the dataset has only {num_samples} samples. "
            "Lower global_batch, give more data, or set last='pad'."
        )
