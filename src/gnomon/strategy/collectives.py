"""How the ranks of a run talk to each other: one interface, and what it means for one rank alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Literal, TypeVar

from torch import Tensor
from torch.distributed import ProcessGroup

T = TypeVar("T")
Reduction = Literal["sum", "mean", "max", "min"]


class Collectives(ABC):
    """Operations that every rank of the run calls alike, in the same order; tensors are left as they are.

    Tensors have the same shape and dtype on every rank and lie on the strategy's device; objects must pickle.
    """

    process_group: ProcessGroup | None = None
    """The group of torch.distributed in which these operations run; None: its default group, or none at all."""

    @abstractmethod
    def all_reduce(self, value: Tensor, op: Reduction = "mean") -> Tensor:
        """Return the reduction of `value` over the ranks, as a new tensor; "mean" needs a floating-point tensor."""

    @abstractmethod
    def all_gather(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, in order of rank, on every rank."""

    @abstractmethod
    def gather(self, value: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return the tensors of all ranks, in order of rank, on rank `destination`, and None elsewhere."""

    @abstractmethod
    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """Return rank `source`'s tensor on every rank."""

    @abstractmethod
    def broadcast_object(self, value: T, source: int = 0) -> T:
        """Return rank `source`'s object on every rank."""

    @abstractmethod
    def gather_objects(self, value: T) -> list[T]:
        """Return the objects of all ranks, in order of rank, on every rank."""

    @abstractmethod
    def barrier(self) -> None:
        """Wait until every rank is here."""

    @abstractmethod
    def separate(self) -> Collectives:
        """Return collectives over the same ranks that another thread may use at the same time, for CPU tensors."""


def copy_from_rank_zero(tensors: Iterable[Tensor], collectives: Collectives) -> None:
    """Overwrite each tensor, of equal shape on every rank, with rank 0's."""
    for tensor in tensors:
        tensor.detach().copy_(collectives.broadcast(tensor))


class AloneCollectives(Collectives):
    """One rank: nothing is sent, and tensors are copied so that the result is a new one as with several ranks."""

    def all_reduce(self, value: Tensor, op: Reduction = "mean") -> Tensor:
        """Return a copy of `value`."""
        return value.detach().clone()

    def all_gather(self, value: Tensor) -> list[Tensor]:
        """Return a copy of `value` in a list."""
        return [value.detach().clone()]

    def gather(self, value: Tensor, destination: int = 0) -> list[Tensor] | None:
        """Return a copy of `value` in a list."""
        return [value.detach().clone()]

    def broadcast(self, value: Tensor, source: int = 0) -> Tensor:
        """Return a copy of `value`."""
        return value.detach().clone()

    def broadcast_object(self, value: T, source: int = 0) -> T:
        """Return `value`."""
        return value

    def gather_objects(self, value: T) -> list[T]:
        """Return `value` in a list."""
        return [value]

    def barrier(self) -> None:
        """Return at once."""

    def separate(self) -> Collectives:
        """Return these collectives."""
        return self
