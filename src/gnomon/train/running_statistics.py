"""Running statistics of normalisation layers, which every rank gathers from its own micro-batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from gnomon.errors import GnomonWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy


class RunningStatistics:
    """The running means and variances of the modules, of which the mean over the ranks is evaluated and saved.

    What a rank has gathered itself comes back afterwards, so that training does not depend on when it was saved.
    SyncBatchNorm needs none of this.
    """

    def __init__(self, modules: Sequence[nn.Module], strategy: Strategy) -> None:
        self._collectives = strategy.collectives
        self._key = f"{strategy.environment.rank} of {strategy.environment.world_size}"
        self._buffers: dict[str, Tensor] = {}
        self._own: dict[str, Tensor] | None = None
        if strategy.environment.world_size > 1:
            for index, module in enumerate(modules):
                self._buffers |= {f"{index}.{name}": buffer for name, buffer in _statistics(module)}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the modules have the means over all ranks inside; a collective call."""
        self._own = own = self._copies()
        self.settle()
        try:
            yield
        finally:
            self._copy(own)
            self._own = None

    @torch.no_grad()
    def settle(self) -> None:
        """Give the modules the means over all ranks for good; a collective call."""
        if self._buffers:
            flat = torch.cat([buffer.flatten().float() for buffer in self._buffers.values()])
            means = self._collectives.all_reduce(flat).split([buffer.numel() for buffer in self._buffers.values()])
            self._copy(dict(zip(self._buffers, means, strict=True)))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Return what this rank has gathered itself, under a name that only the same rank of as many ranks has."""
        return {self._key: self._copies() if self._own is None else self._own} if self._buffers else {}

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `state` returned; nothing, if it is from another number of ranks."""
        self._copy(state.get(self._key, {}))

    def _copies(self) -> dict[str, Tensor]:
        return {name: buffer.detach().clone() for name, buffer in self._buffers.items()}

    @torch.no_grad()
    def _copy(self, values: Mapping[str, Tensor]) -> None:
        for name, value in values.items():
            self._buffers[name].copy_(value.view_as(self._buffers[name]))


def warn_of_batch_norm(module: nn.Module, environment: RankEnvironment, accumulation: int) -> None:
    """Warn on rank 0, naming the layer, where a micro-batch that is normalised is not the whole batch of a step."""
    ranks = environment.world_size
    if ranks * accumulation == 1 or not environment.is_main:
        return
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm) and layer.training:
            warnings.warn(
                f"The layer '{name}' is a {type(layer).__name__}: each of the {ranks} rank(s) normalises over its own "
                f"micro-batch, {accumulation} of them per step, so the results depend on both numbers. Use GroupNorm "
                "or LayerNorm, or SyncBatchNorm on GPUs, where they must not.",
                GnomonWarning,
                stacklevel=2,
            )
            return


def _statistics(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for path, layer in module.named_modules():
        if isinstance(layer, _NormBase) and not isinstance(layer, nn.SyncBatchNorm):
            for name in ("running_mean", "running_var"):
                buffer = getattr(layer, name)
                if buffer is not None:
                    yield f"{path}.{name}", buffer
