"""An exponential moving average of the weights, which often generalises better than the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gnomon.errors import ConfigError


class WeightAverage:
    """average <- decay * average + (1 - decay) * weights after each optimizer step (Polyak and Juditsky 1992).

    Raises ConfigError where the strategy keeps the weights elsewhere than in the module.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
        if any(parameter.numel() == 0 for _, parameter in named):
            raise ConfigError(
                f"ema_decay={decay:g} needs the weights in the module, and zero_stage=3 of strategy=deepspeed keeps "
                "them elsewhere. Set zero_stage=2, strategy=fsdp, or no ema_decay."
            )
        self._weights = [parameter for _, parameter in named]
        self.tensors: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in named}
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Take the present weights into the average."""
        self._average(_local(self.tensors.values()), _local(self._weights), 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module compute with the averages; the weights come back at the end."""
        kept = [weight.detach().clone() for weight in self._weights]
        self._copy(self.tensors.values())
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: Iterable[Tensor]) -> None:
        for weight, value in zip(_local(self._weights), _local(values), strict=True):
            weight.copy_(value)


def _local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Return this rank's parts, which share memory with the tensors; distributed ones may lie on several meshes."""
    # a DTensor is known by its method, because importing its class takes half as long as importing torch
    return [(tensor.to_local() if hasattr(tensor, "to_local") else tensor).detach() for tensor in tensors]
