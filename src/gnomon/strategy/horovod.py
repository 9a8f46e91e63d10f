"""Data parallelism through Horovod: a whole copy of the model on each rank, gradients averaged by its engine."""

from __future__ import annotations

import importlib
import os
import socket
from collections.abc import Callable, Iterator
from types import MethodType, SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from gnomon.errors import LaunchError
from gnomon.strategy.collectives import Collectives, Reduction, T, copy_from_rank_zero
from gnomon.strategy.process_group import DataParallelStrategy, ProcessGroupCollectives

_NAME = "gnomon"  # of operations on objects: by default Horovod names them after the type, which may differ by rank


class HorovodCollectives(Collectives):
    """Collectives over all ranks of Horovod."""

    def __init__(self, horovod: Any, device: torch.device) -> None:
        self._horovod = horovod
        self._device = device

    def all_reduce(self, value: Tensor, op: Reduction = "mean") -> Tensor:
        """Return the reduction over the ranks; a mean is a sum divided once, so it is exact for 2**n ranks."""
        hvd = self._horovod
        operation = {"sum": hvd.Sum, "mean": hvd.Sum, "max": hvd.Max, "min": hvd.Min}[op]
        result: Tensor = hvd.allreduce(value.detach(), op=operation)
        return result / hvd.size() if op == "mean" else result

    def all_gather(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks."""
        return list(self._horovod.allgather(value.detach()[None]).unbind(0))

    def gather(self, value: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return the tensors of all ranks on rank `destination`; Horovod sends them to all."""
        values = self.all_gather(value)
        return values if self._horovod.rank() == destination else None

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """Return rank `source`'s tensor on every rank."""
        result: Tensor = self._horovod.broadcast(value.detach(), source)
        return result

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """Return rank `source`'s object on every rank."""
        result: T = self._horovod.broadcast_object(value, source, name=_NAME)
        return result

    def gather_objects(self, value: T) -> list[T]:
        """Return the objects of all ranks."""
        values: list[T] = self._horovod.allgather_object(value, name=_NAME)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self._horovod.barrier()

    def separate(self) -> Collectives:
        """Return collectives over a gloo group of torch.distributed; a collective call itself."""
        return ProcessGroupCollectives(self._horovod.size(), self._device).separate()


class HorovodStrategy(DataParallelStrategy):
    """Horovod's DistributedOptimizer, started by horovodrun or by any launcher that torch.distributed knows.

    Checkpoints and metrics use torch.distributed, whose process group is made too: whichever of the two the launcher
    prepared tells the other where to meet. Raises LaunchError when Horovod is not installed.

    Horovod sums up several gradients at once, whichever are ready. With more than two ranks the order of summation
    depends on that, so two runs may differ in the last bit; HOROVOD_FUSION_THRESHOLD=0 keeps gradients apart.
    """

    name = "horovod"

    @property
    def collectives(self) -> Collectives:
        """Collectives over all ranks."""
        return HorovodCollectives(_import_horovod(), self.device)

    def setup(self) -> None:
        """Join the other ranks in Horovod and in torch.distributed; raise LaunchError when that fails."""
        hvd = _import_horovod()
        self._server: Any = None
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.environment.source == "horovod":
            hvd.init()
            self._join_process_group_through(hvd)
        else:
            super().setup()
            self._tell_horovod()
            hvd.init()
        found = (hvd.rank(), hvd.size())
        if found != (self.environment.rank, self.environment.world_size):
            raise LaunchError(
                f"Horovod calls this rank {found[0]} of {found[1]}, but its launcher said {self.environment.rank} of "
                f"{self.environment.world_size}. Unset the HOROVOD_* variables, or start the ranks with horovodrun."
            )

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on this rank's device, with rank 0's weights."""
        model = model.to(self.device)
        copy_from_rank_zero([*model.parameters(), *model.buffers()], self.collectives)
        return model

    def prepare_optimizer(self, model: nn.Module, optimizer: Optimizer, max_norm: float | None) -> Optimizer:
        """Return the optimizer in Horovod's, which averages the gradients while they are computed."""
        hvd = _import_horovod()
        wrapped: Any = hvd.DistributedOptimizer(optimizer, named_parameters=list(model.named_parameters()))
        # forward_backward has averaged the gradients already, so that clipping sees the average; and Horovod's
        # zero_grad does not know set_to_none
        wrapped.step = MethodType(type(optimizer).step, wrapped)
        wrapped.zero_grad = MethodType(type(optimizer).zero_grad, wrapped)
        self._optimizer = wrapped
        result: Optimizer = wrapped
        return result

    def forward_backward(
        self,
        model: nn.Module,
        training_step: Callable[[Any], Tensor],
        batches: Iterator[Any],
        count: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of `count` micro-batches, averaged over the ranks; return their mean loss, detached."""
        copy_from_rank_zero(model.buffers(), self.collectives)
        if self._optimizer.backward_passes_per_step != count:
            self._optimizer.set_backward_passes_per_step(count)
        loss = super().forward_backward(model, training_step, batches, count, backward)
        if self.environment.world_size > 1:
            self._optimizer.synchronize()
        return loss

    def teardown(self) -> None:
        """Leave Horovod and the process group; harmless when `setup` was never called or failed."""
        server = getattr(self, "_server", None)
        if self._has_joined:
            _import_horovod().shutdown()
        super().teardown()
        if server is not None:
            server.stop()
            self._server = None

    def _join_process_group_through(self, hvd: Any) -> None:
        """Make the process group where rank 0, which horovodrun put anywhere, found a free port."""
        address = "127.0.0.1" if self.environment.local_world_size == hvd.size() else socket.gethostname()
        store: Any = None
        if self.environment.is_main:
            store = dist.TCPStore(address, 0, hvd.size(), is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
            address, port = hvd.broadcast_object((address, store.port), 0, name=_NAME)
        else:
            address, port = hvd.broadcast_object(None, 0, name=_NAME)
            store = dist.TCPStore(address, port, hvd.size(), is_master=False)  # type: ignore[attr-defined]
        dist.init_process_group(self.backend, store=store, rank=hvd.rank(), world_size=hvd.size())
        self._has_joined = True

    def _tell_horovod(self) -> None:
        """Set what horovodrun would have set, once the process group is there."""
        environment = self.environment
        over = ProcessGroupCollectives(environment.world_size, self.device)
        hosts = over.gather_objects(socket.gethostname())
        local_ranks = over.gather_objects(environment.local_rank)
        names = list(dict.fromkeys(hosts))
        slots = [
            SimpleNamespace(
                hostname=host,
                rank=rank,
                local_rank=local_ranks[rank],
                cross_rank=names.index(host),
                size=environment.world_size,
                local_size=hosts.count(host),
                cross_size=len(names),
            )
            for rank, host in enumerate(hosts)
        ]
        address, port = over.broadcast_object(self._serve(slots) if environment.is_main else ("", 0))
        own = slots[environment.rank]
        os.environ |= {
            "HOROVOD_HOSTNAME": own.hostname,
            "HOROVOD_RANK": str(own.rank),
            "HOROVOD_SIZE": str(own.size),
            "HOROVOD_LOCAL_RANK": str(own.local_rank),
            "HOROVOD_LOCAL_SIZE": str(own.local_size),
            "HOROVOD_CROSS_RANK": str(own.cross_rank),
            "HOROVOD_CROSS_SIZE": str(own.cross_size),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
        }
        if interface := os.environ.get("GLOO_SOCKET_IFNAME"):
            os.environ.setdefault("HOROVOD_GLOO_IFACE", interface)

    def _serve(self, slots: list[SimpleNamespace]) -> tuple[str, int]:
        """Start the server where the ranks of Horovod meet; return its address and port."""
        self._server = importlib.import_module("horovod.runner.http.http_server").RendezvousServer()
        port: int = self._server.start()
        self._server.init(slots)
        is_one_host = len({slot.hostname for slot in slots}) == 1
        return "127.0.0.1" if is_one_host else socket.gethostbyname(socket.gethostname()), port


def _import_horovod() -> Any:
    try:
        return importlib.import_module("horovod.torch")
    except ImportError as error:
        raise LaunchError(
            f"strategy=horovod needs Horovod with PyTorch and gloo: {error}. `make horovod` builds it into the "
            "environment; strategy=ddp does the same work without it."
        ) from error
