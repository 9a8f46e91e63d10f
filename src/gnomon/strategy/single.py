"""One process, one device."""

from __future__ import annotations

import torch
from torch import nn

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy
from gnomon.strategy.collectives import AloneCollectives, Collectives


class SingleStrategy(Strategy):
    """No other ranks: nothing is wrapped and nothing is sent. Raises LaunchError if there are several ranks."""

    name = "single"

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        if environment.world_size > 1:
            raise LaunchError(
                f"strategy=single, but WORLD_SIZE={environment.world_size}: every rank would train alone and all "
                "would write the same run. Set strategy=ddp (or auto), or start one process."
            )
        super().__init__(environment, device)
        self._collectives = AloneCollectives()

    @property
    def collectives(self) -> Collectives:
        """Collectives of one rank."""
        return self._collectives

    def setup(self) -> None:
        """Make this rank's GPU the current one, where there is one."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on this rank's device."""
        return model.to(self.device)

    def teardown(self) -> None:
        """Do nothing."""
