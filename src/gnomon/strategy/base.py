"""The interface of every way to distribute training over ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.collectives import Collectives

_NOTHING = nullcontext()  # made once: every micro-batch enters it

Tensors = dict[str, Any]
"""A nested mapping whose leaves are tensors, plain or DTensor."""


class Strategy(ABC):
    """How the ranks of a run share the model and talk to each other. All methods are called on every rank.

    The order of calls: `setup`, `prepare`, `prepare_optimizer`; for each optimizer step `forward_backward` and `step`;
    `state` and `load_state` between steps; `teardown`. A subclass takes its options as keyword arguments of `__init__`.
    """

    name: ClassVar[str]
    can_scale_loss: ClassVar[bool] = True
    """Whether torch.amp.GradScaler works with this strategy's gradients."""
    gathers_weights: bool = False
    """Whether a forward pass gathers weights, so that all ranks must do as many, through the prepared model."""

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        self.environment = environment
        self.device = device

    @property
    @abstractmethod
    def collectives(self) -> Collectives:
        """Operations over all ranks of the run."""

    @property
    def data_shard(self) -> tuple[int, int]:
        """Which share of each batch this rank reads, and how many shares there are; by default one per rank."""
        return self.environment.rank, self.environment.world_size

    @abstractmethod
    def setup(self) -> None:
        """Join the other ranks; raise LaunchError when they cannot be reached."""

    @abstractmethod
    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on this rank's device, wrapped or split as this strategy needs, with rank 0's weights."""

    def prepare_optimizer(self, model: nn.Module, optimizer: Optimizer, max_norm: float | None) -> Optimizer:
        """Return the optimizer to step, made for the parameters of the prepared model."""
        return optimizer

    def synchronise(self, model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Return the context for forward and backward of one micro-batch; only the last one averages gradients."""
        return _NOTHING

    def forward_backward(
        self,
        model: nn.Module,
        training_step: Callable[[Any], Tensor],
        batches: Iterator[Any],
        count: int,
        backward: Callable[[Tensor], None] = Tensor.backward,
    ) -> Tensor:
        """Add the gradients of `count` micro-batches and return their mean loss on this rank, detached.

        Afterwards the gradients are averaged over all ranks. The mean of the returned losses over all ranks is the
        mean loss of the batch.
        """
        total: Tensor | None = None
        for index in range(count):
            batch = next(batches)
            with self.synchronise(model, index == count - 1):
                loss = training_step(batch)
                if count > 1:
                    loss = loss / count
                backward(loss)
            loss = loss.detach()
            total = loss if total is None else total + loss
        if total is None:
            raise ValueError("forward_backward needs at least one micro-batch")
        return total

    def evaluate(self, model: nn.Module, validation_step: Callable[[Any], Tensor], batch: Any) -> Tensor:
        """Return the loss of one micro-batch on this rank, without gradients; its mean over all ranks is the loss."""
        return validation_step(batch)

    def clip(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        """Scale the gradients so that their norm over all ranks is at most `max_norm`; return the norm before."""
        return nn.utils.clip_grad_norm_(parameters, max_norm, foreach=True)

    def module(self, model: nn.Module) -> nn.Module:
        """Return what the prepared model trains, without wrappers: its names are those of the checkpoint."""
        return model

    def state(self, model: nn.Module, optimizer: Optimizer) -> Tensors:
        """Return {"model", "optimizer"}: tensors by name, alike under every strategy; sharded ones as DTensor.

        Names and global shapes depend on the model alone, so that any strategy and number of ranks can load them.
        """
        from torch.distributed.checkpoint.state_dict import get_state_dict  # slow to import, and not always needed

        is_new = not optimizer.state
        model_state, optimizer_state = get_state_dict(self.module(model), optimizer)
        states: dict[str, Any] = optimizer_state["state"]  # type: ignore[assignment]
        if is_new:  # PyTorch has made the state by a step of length zero, and counted it
            for tensors in states.values():
                if "step" in tensors:
                    tensors["step"].zero_()
            optimizer.state.clear()
        return {"model": model_state, "optimizer": states}

    def load_state(self, model: nn.Module, optimizer: Optimizer, tensors: Tensors) -> None:
        """Take over what `state` returned, after its tensors were filled from a checkpoint."""
        from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

        module = self.module(model)
        groups = get_state_dict(module, optimizer)[1]["param_groups"]  # hyperparameters come from the configuration
        optimizer_state = {"state": tensors["optimizer"], "param_groups": groups}
        set_state_dict(module, optimizer, model_state_dict=tensors["model"], optim_state_dict=optimizer_state)

    @abstractmethod
    def teardown(self) -> None:
        """Leave the other ranks; harmless when `setup` was never called or failed."""
