"""Data parallelism: a whole copy of the model on each rank, gradients averaged in buckets during backward."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.base import Strategy, T


class DDPStrategy(Strategy):
    """DistributedDataParallel over gloo (CPU) or NCCL (CUDA). Raises LaunchError outside torchrun."""

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        if environment.source != "torchrun":
            raise LaunchError(
                "strategy=ddp, but this process was not started by torchrun: RANK and WORLD_SIZE are not set. "
                "Let gnomon start the ranks (ranks=2), start them with "
                "`torchrun --standalone --nproc-per-node=2 -m MODULE`, or set strategy=single."
            )
        super().__init__(environment, device)
        self._has_joined = False

    def setup(self) -> None:
        """Join the process group at MASTER_ADDR:MASTER_PORT, or use the one that this process is already in.

        Raises LaunchError when joining fails.
        """
        if dist.is_initialized():
            return  # joining twice would leave ranks in different groups, and they would wait for each other forever
        options: dict[str, Any] = {"backend": "gloo"}
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            options = {"backend": "nccl", "device_id": self.device}
        try:
            dist.init_process_group(rank=self.environment.rank, world_size=self.environment.world_size, **options)
        except (RuntimeError, ValueError) as error:
            raise LaunchError(
                f"Rank {self.environment.rank} of {self.environment.world_size} cannot join the others over "
                f"{options['backend']}: {str(error).splitlines()[0]} Check MASTER_ADDR and MASTER_PORT, and that all "
                "ranks started."
            ) from error
        self._has_joined = True

    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model in DistributedDataParallel, with rank 0's weights; as it is if nothing is trainable."""
        model = model.to(self.device)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        # static_graph stays off: it does not support no_sync(), on which gradient accumulation rests.
        # Buffers follow rank 0 at each forward pass, PyTorch's default; a model without any sends nothing.
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )

    def synchronise(self, model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Return DDP's no_sync() for all micro-batches but the last."""
        if is_last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return the mean over the ranks: the sum divided once, so the division is exact for 2**n ranks."""
        total = value.detach().clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total / self.environment.world_size

    def broadcast_object(self, value: T) -> T:
        """Return rank 0's `value` on every rank."""
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather_objects(self, value: T) -> list[T]:
        """Return the values of all ranks, in order of rank."""
        values: list[Any] = [None] * self.environment.world_size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    def teardown(self) -> None:
        """Leave the process group if `setup` joined it."""
        if self._has_joined and dist.is_initialized():
            # NCCL leaves together; a rank that failed would wait for the others and never tell its error
            if self.device.type == "cpu" or sys.exc_info()[0] is None:
                dist.destroy_process_group()
            self._has_joined = False
