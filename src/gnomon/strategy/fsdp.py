"""Fully sharded data parallelism: each rank keeps a part of weights, gradients and optimizer state (ZeRO 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from gnomon.errors import ConfigError, LaunchError, did_you_mean
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.collectives import copy_from_rank_zero
from gnomon.strategy.process_group import DataParallelStrategy


class FSDPStrategy(DataParallelStrategy):
    """torch's fully_shard over gloo (CPU) or NCCL (CUDA), for each block of the model and for the rest of it.

    `zero_stage` 3 gathers the weights of a block before its forward and again before its backward pass, 2 keeps them
    in between. `replicas` copies of the sharded model (hybrid sharding) gather within each copy only. `offload` keeps
    the shards in the memory of the CPU. `shard` names the modules to shard on their own, as in `blocks.*`; by default
    the children of the outermost ModuleList and Sequential. Mixed precision is the trainer's autocast.
    Raises ConfigError for a wrong option and LaunchError for `replicas` that do not divide the ranks.
    """

    name = "fsdp"
    gathers_weights = True

    def __init__(
        self,
        environment: RankEnvironment,
        device: torch.device,
        zero_stage: int = 3,
        replicas: int = 1,
        offload: bool = False,
        shard: Sequence[str] | None = None,
    ) -> None:
        super().__init__(environment, device)
        if zero_stage not in (2, 3):
            raise ConfigError(
                f"zero_stage={zero_stage}, but strategy=fsdp shards the gradients (2) or the weights too (3). "
                "Set zero_stage=2 or 3, strategy=deepspeed for stage 1, or strategy=ddp for 0."
            )
        if replicas < 1 or environment.world_size % replicas:
            raise LaunchError(
                f"replicas={replicas} does not divide the {environment.world_size} ranks. "
                "Set replicas to a divisor of the number of ranks, or start another number."
            )
        self._zero_stage = zero_stage
        self._replicas = replicas
        self._offload = offload
        self._shard = None if shard is None else list(shard)

    @property
    def backend(self) -> str:
        """The backends of the process group: shards that lie on the CPU need gloo beside NCCL."""
        return "cpu:gloo,cuda:nccl" if self._offload and self.device.type == "cuda" else super().backend

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model itself, its parameters sharded DTensors with rank 0's weights."""
        blocks = self._blocks(model)
        _refuse_shared_weights(model, blocks)
        model = model.to(self.device)
        copy_from_rank_zero([*model.parameters(), *model.buffers()], self.collectives)
        policy = CPUOffloadPolicy(pin_memory=self.device.type == "cuda") if self._offload else OffloadPolicy()
        options: dict[str, Any] = {"mesh": self._mesh(), "offload_policy": policy}
        for block in blocks.values():
            fully_shard(block, reshard_after_forward=self._zero_stage == 3, **options)
        # the last gathered is the first that backward needs, so the root keeps its own weights
        fully_shard(model, reshard_after_forward=False, **options)
        return model

    @contextmanager
    def synchronise(self, model: nn.Module, is_last: bool) -> Iterator[None]:
        """Let only the last micro-batch reduce and scatter the gradients; the others add them up unsharded."""
        assert isinstance(model, FSDPModule)  # made by prepare
        model.set_requires_gradient_sync(is_last)
        model.set_is_last_backward(is_last)
        yield

    def forward_backward(
        self,
        model: nn.Module,
        training_step: Callable[[Any], Tensor],
        batches: Iterator[Any],
        count: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of `count` micro-batches and return their mean loss on this rank, detached.

        Buffers follow rank 0 before the first one, as under DistributedDataParallel.
        """
        copy_from_rank_zero(list(model.buffers()), self.collectives)
        return super().forward_backward(model, training_step, batches, count, backward)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients so that their norm over all ranks is at most `max_norm`; return the norm before."""
        norm = super().clip(parameters, max_norm)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _mesh(self) -> DeviceMesh:
        ranks = self.environment.world_size
        if self._replicas == 1:
            return init_device_mesh(self.device.type, (ranks,), mesh_dim_names=("shard",))
        shape = (self._replicas, ranks // self._replicas)
        return init_device_mesh(self.device.type, shape, mesh_dim_names=("replicate", "shard"))

    def _blocks(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules to shard on their own, by name; raise ConfigError for a name that the model lacks."""
        if self._shard is None:
            return dict(_container_children("", model))
        modules = {name: module for name, module in model.named_modules() if name}
        chosen: dict[str, nn.Module] = {}
        for pattern in self._shard:
            found = {name: module for name, module in modules.items() if fnmatchcase(name, pattern)}
            if not found:
                raise ConfigError(f"shard: the model has no module '{pattern}'. {did_you_mean(pattern, modules)}")
            chosen |= found
        return dict(sorted(chosen.items(), key=lambda item: -item[0].count(".")))  # inner modules come first


def _container_children(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the children of the outermost containers that have weights; a container in a container is looked into."""
    is_container = isinstance(module, nn.ModuleList | nn.Sequential)
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if is_container and not isinstance(child, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            if any(True for _ in child.parameters()):
                yield path, child
        else:
            yield from _container_children(f"{path}.", child)


def _refuse_shared_weights(model: nn.Module, blocks: dict[str, nn.Module]) -> None:
    """Raise ConfigError for a weight that a block shares with the rest: its two uses would be gathered apart."""
    owner: dict[nn.Parameter, tuple[str, str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        block = max((b for b in blocks if name.startswith(f"{b}.")), key=len, default="")
        first_name, first_block = owner.setdefault(parameter, (name, block))
        if first_block != block:
            raise ConfigError(
                f"strategy=fsdp: '{name}' and '{first_name}' are one weight in different shards. "
                "Set the option shard to modules that keep both together, or shard=[] to shard the model as a whole."
            )
