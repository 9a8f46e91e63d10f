"""What the strategies of torch.distributed share: joining the process group, and its collectives."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.optim import Optimizer

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy, Tensors
from gnomon.strategy.collectives import Collectives, Reduction, T, copy_from_rank_zero

_OPERATIONS = {"sum": dist.ReduceOp.SUM, "mean": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class ProcessGroupCollectives(Collectives):
    """Collectives over the default process group (gloo on CPUs, NCCL on GPUs), or over `group` with the same ranks."""

    def __init__(self, world_size: int, device: torch.device, group: ProcessGroup | None = None) -> None:
        self._world_size = world_size
        self._device = device
        self.process_group = group

    def all_reduce(self, value: Tensor, op: Reduction = "mean") -> Tensor:
        """Return the reduction over the ranks; a mean is a sum divided once, so it is exact for 2**n ranks."""
        result = value.detach().clone()
        dist.all_reduce(result, op=_OPERATIONS[op], group=self.process_group)
        return result / self._world_size if op == "mean" else result

    def all_gather(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks."""
        value = value.detach().contiguous()
        values = [torch.empty_like(value) for _ in range(self._world_size)]
        dist.all_gather(values, value, group=self.process_group)
        return values

    def gather(self, value: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return the tensors of all ranks on rank `destination`."""
        value = value.detach().contiguous()
        is_destination = dist.get_rank() == destination
        values = [torch.empty_like(value) for _ in range(self._world_size)] if is_destination else None
        dist.gather(value, values, dst=destination, group=self.process_group)
        return values

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """Return rank `source`'s tensor on every rank."""
        result = value.detach().clone().contiguous()
        dist.broadcast(result, src=source, group=self.process_group)
        return result

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """Return rank `source`'s object on every rank."""
        values = [value]
        dist.broadcast_object_list(values, src=source, group=self.process_group)
        return values[0]

    def gather_objects(self, value: T) -> list[T]:
        """Return the objects of all ranks."""
        values: list[Any] = [None] * self._world_size
        dist.all_gather_object(values, value, group=self.process_group)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier(group=self.process_group, device_ids=[self._device.index] if self._device.type == "cuda" else None)

    def separate(self) -> Collectives:
        """Return collectives over a gloo group of their own; a collective call itself."""
        return ProcessGroupCollectives(self._world_size, torch.device("cpu"), dist.new_group(backend="gloo"))


class ProcessGroupStrategy(Strategy):
    """A strategy whose ranks meet in torch.distributed's default process group.

    Raises LaunchError when the process was not started as one of several ranks.
    """

    name = "ddp"

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        if environment.source == "single":
            raise LaunchError(
                f"strategy={self.name}, but this process was not started by torchrun, srun or mpirun: RANK and "
                "WORLD_SIZE are not set. "
                "Let gnomon start the ranks (ranks=2), start them with "
                "`torchrun --standalone --nproc-per-node=2 -m MODULE`, or set strategy=single."
            )
        super().__init__(environment, device)
        self._collectives = ProcessGroupCollectives(environment.world_size, device)
        self._has_joined = False

    @property
    def collectives(self) -> Collectives:
        """Collectives over all ranks."""
        return self._collectives

    @property
    def backend(self) -> str:
        """What carries the collectives: gloo on CPUs, NCCL on GPUs."""
        return "nccl" if self.device.type == "cuda" else "gloo"

    def setup(self) -> None:
        """Join the process group where the launcher says, or use the one that this process is already in.

        Raises LaunchError when joining fails.
        """
        if dist.is_initialized():
            return  # joining twice would leave ranks in different groups, and they would wait for each other forever
        options: dict[str, Any] = {"backend": self.backend}
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            options["device_id"] = self.device
        rank, world_size = self.environment.rank, self.environment.world_size
        try:
            store = _meeting_place(self.environment)
            dist.init_process_group(store=store, rank=rank, world_size=world_size, **options)
        except (RuntimeError, ValueError) as error:
            raise LaunchError(
                f"Rank {self.environment.rank} of {self.environment.world_size} cannot join the others over "
                f"{options['backend']}: {str(error).splitlines()[0]} Check MASTER_ADDR and MASTER_PORT, and that all "
                "ranks started."
            ) from error
        self._has_joined = True

    def teardown(self) -> None:
        """Leave the process group if `setup` joined it."""
        if self._has_joined and dist.is_initialized():
            # NCCL leaves together; a rank that failed would wait for the others and never tell its error
            if self.device.type == "cpu" or sys.exc_info()[0] is None:
                self._leave()
            self._has_joined = False

    def _leave(self) -> None:
        dist.destroy_process_group()


_joins = itertools.count()


def _meeting_place(environment: RankEnvironment) -> Store:
    """Return the store where the ranks find each other, under names that no earlier group of these processes used.

    torchrun's store outlives a group, and a rank would read there where its peers were and not where they are.
    """
    url = "env://" if environment.master is None else "tcp://{}:{}".format(*environment.master)
    store, _, _ = next(iter(rendezvous(url, environment.rank, environment.world_size)))
    return PrefixStore(f"gnomon-{next(_joins)}", store)


class DataParallelStrategy(ProcessGroupStrategy):
    """A process group whose ranks each compute the whole model on their share of the batch."""

    def state(self, model: nn.Module, optimizer: Optimizer) -> Tensors:
        """Return the state with rank 0's buffers: each rank's followed its own share of the last batch."""
        copy_from_rank_zero(self.module(model).buffers(), self.collectives)
        return super().state(model, optimizer)
