"""Data parallelism: a whole copy of the model on each rank, gradients averaged in buckets during backward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gnomon.strategy.process_group import DataParallelStrategy


class DDPStrategy(DataParallelStrategy):
    """DistributedDataParallel over gloo (CPU) or NCCL (CUDA)."""

    name = "ddp"

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

    def module(self, model: nn.Module) -> nn.Module:
        """Return the model inside DistributedDataParallel."""
        return model.module if isinstance(model, DistributedDataParallel) else model
