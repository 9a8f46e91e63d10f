"""Data parallelism: a whole copy of the model on each rank, gradients averaged in buckets during backward."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
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
        wrapped = DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            gradient_as_bucket_view=True,
        )
        _settle_buckets(wrapped)
        return wrapped

    def synchronise(self, model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Return DDP's no_sync() for all micro-batches but the last."""
        if is_last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def module(self, model: nn.Module) -> nn.Module:
        """Return the model inside DistributedDataParallel."""
        return model.module if isinstance(model, DistributedDataParallel) else model


class _Touch(nn.Module):
    """Uses every trainable weight once, in the order of their definition."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, zero: Tensor) -> Tensor:
        """Return zero."""
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                zero = zero + parameter.sum() * 0.0
        return zero


def _settle_buckets(wrapped: DistributedDataParallel) -> None:
    """Let DDP choose its buckets now rather than after the first real backward pass.

    It starts with one bucket and then makes others, in the order in which gradients become ready. With more than two
    ranks the order in which a gradient is added up depends on its place in the bucket, so the first step after a
    restart would be rounded in another way than the same step of a run that was not interrupted.
    """
    model = wrapped.module
    wrapped.module = _Touch(model)
    zero = torch.zeros((), device=next(model.parameters()).device)  # without an argument DDP fails on GPUs
    wrapped(zero).backward()
    wrapped.module = model
    wrapped.zero_grad(set_to_none=True)
