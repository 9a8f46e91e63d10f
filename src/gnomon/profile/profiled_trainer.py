"""A GPT trainer whose phases carry names in the profiler's trace, and which knows what its tensors occupy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import record_function

from gnomon.profile.operator_names import (
    CLIPPING_SCOPE,
    DATA_SCOPE,
    EMBEDDING_SCOPE,
    FORWARD_SCOPE,
    HEAD_SCOPE,
    STEP_SCOPE,
)
from gnomon.profile.tensor_memory import resident_bytes
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.gpt_trainer import GPTTrainer


class ProfiledTrainer(GPTTrainer):
    """Computes exactly what `GPTTrainer` does; the optimizer is named by PyTorch itself."""

    def __init__(self, config: GPTTrainingConfig) -> None:
        super().__init__(config)
        self.baseline_memory_bytes = 0
        self.gradients_bytes = 0

    def setup(self) -> None:
        """Build everything that a step needs, and watch the gradients that each optimizer step finds."""
        super().setup()
        self._batches = _named_batches(self._batches)
        self.optimizer.register_step_pre_hook(self._count_gradients)

    def create_model(self) -> nn.Module:
        """Return the GPT with its embedding and head named; the resident memory before it is the baseline."""
        self.baseline_memory_bytes = resident_bytes()
        model = super().create_model()
        for owner, method, scope in ((model, "embed", EMBEDDING_SCOPE), (model.head, "forward", HEAD_SCOPE)):
            setattr(owner, method, _in_scope(getattr(owner, method), scope))
        return model

    def training_step(self, batch: Any) -> Tensor:
        """Return the loss of one micro-batch."""
        with record_function(FORWARD_SCOPE):
            return super().training_step(batch)

    def run_step(self) -> Tensor:
        """Do one optimizer step and wait for the device, so that the whole step lies in its scope."""
        with record_function(STEP_SCOPE), _named_clipping():
            loss = super().run_step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return loss

    def _count_gradients(self, *_: Any) -> None:
        self.gradients_bytes = _bytes(_gradients(self.module))

    @property
    def weights_bytes(self) -> int:
        """Bytes of parameters and buffers."""
        return _bytes([*self.module.parameters(), *self.module.buffers()])

    @property
    def optimizer_bytes(self) -> int:
        """Bytes of the optimizer's state."""
        states = self.optimizer.state.values()
        return _bytes(value for state in states for value in state.values() if isinstance(value, Tensor))

    @property
    def communication_bytes(self) -> int:
        """Bytes of buckets that hold a second copy of the gradients; none if the gradients live in the buckets."""
        if not isinstance(self.model, DistributedDataParallel) or self.model.gradient_as_bucket_view:
            return 0
        return self.gradients_bytes

    def live_bytes(self) -> int:
        """Return the bytes of the tensors that are alive between two steps."""
        in_buckets = isinstance(self.model, DistributedDataParallel) and self.model.gradient_as_bucket_view
        gradients = self.gradients_bytes if in_buckets else _bytes(_gradients(self.module))
        return self.weights_bytes + self.optimizer_bytes + self.communication_bytes + gradients


def _named_batches(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        with record_function(DATA_SCOPE):
            batch = next(batches)  # the trainer's batches never end
        yield batch


def _in_scope(function: Callable[..., Any], scope: str) -> Callable[..., Any]:
    def named(*arguments: Any, **keywords: Any) -> Any:
        with record_function(scope):
            return function(*arguments, **keywords)

    return named


@contextmanager
def _named_clipping() -> Iterator[None]:
    original = nn.utils.clip_grad_norm_
    nn.utils.clip_grad_norm_ = _in_scope(original, CLIPPING_SCOPE)
    try:
        yield
    finally:
        nn.utils.clip_grad_norm_ = original


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Return what this rank holds; of a DTensor that is its own part."""
    parts = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return sum(tensor.numel() * tensor.element_size() for tensor in parts)
