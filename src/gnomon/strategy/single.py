"""One process, one device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy, T


class SingleStrategy(Strategy):
    """No other ranks: nothing is wrapped and nothing is sent. Raises LaunchError if there are several ranks."""

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        if environment.world_size > 1:
            raise LaunchError(
                f"strategy=single, but WORLD_SIZE={environment.world_size}: every rank would train alone and all "
                "would write the same run. Set strategy=ddp (or auto), or start one process."
            )
        super().__init__(environment, device)

    def setup(self) -> None:
        """Make this rank's GPU the current one, where there is one."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on this rank's device."""
        return model.to(self.device)

    def synchronise(self, model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Return a context that does nothing."""
        return nullcontext()

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return a copy of `value`."""
        return value.detach().clone()

    def broadcast_object(self, value: T) -> T:
        """Return `value`."""
        return value

    def gather_objects(self, value: T) -> list[T]:
        """Return `value` in a list."""
        return [value]

    def barrier(self) -> None:
        """Return at once."""

    def teardown(self) -> None:
        """Do nothing."""
