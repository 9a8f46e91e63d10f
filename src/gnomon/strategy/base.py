"""The interface of every way to distribute training over ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TypeVar

import torch
from torch import Tensor, nn

from gnomon.runtime.environment import RankEnvironment

T = TypeVar("T")


class Strategy(ABC):
    """How the ranks of a run share the model and talk to each other. All methods are called on every rank."""

    def __init__(self, environment: RankEnvironment, device: torch.device) -> None:
        self.environment = environment
        self.device = device

    @abstractmethod
    def setup(self) -> None:
        """Join the other ranks; raise LaunchError when they cannot be reached."""

    @abstractmethod
    def prepare(self, model: nn.Module) -> nn.Module:
        """Return the model on this rank's device, wrapped so that `backward` also averages the gradients."""

    @abstractmethod
    def synchronise(self, model: nn.Module, is_last: bool) -> AbstractContextManager[object]:
        """Return the context for forward and backward of one micro-batch; only the last one averages gradients."""

    @abstractmethod
    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return the mean of a floating-point tensor over the ranks, as a new tensor; `value` stays as it is."""

    @abstractmethod
    def broadcast_object(self, value: T) -> T:
        """Return rank 0's `value` on every rank; it must pickle."""

    @abstractmethod
    def gather_objects(self, value: T) -> list[T]:
        """Return the values of all ranks, in order of rank, on every rank; they must pickle."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here."""

    @abstractmethod
    def teardown(self) -> None:
        """Leave the other ranks; harmless when `setup` was never called or failed."""
