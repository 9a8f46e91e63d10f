"""What one rank executes: operations in order, and where the chunks of the model lie."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gnomon.errors import PlanError

Kind = Literal["F", "B", "W"]
Place = tuple[int, int]  # (rank, chunk)


class Operation(NamedTuple):
    """One pass of one micro-batch through one chunk: forward, backward by input, or backward by weight.

    A program without any W computes both gradients in B.
    """

    kind: Kind
    chunk: int
    micro_batch: int


class Exchange(NamedTuple):
    """A transfer that two neighbours enter together and that holds both up until it is done."""

    partner: int


Program = list[Operation | Exchange]


class Loop:
    """Stage s of the model lies on rank s mod p: one chunk per rank, or `chunks` of them (interleaved)."""

    def __init__(self, pp: int, chunks: int) -> None:
        self.pp, self.chunks = pp, chunks

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None for the first chunk of the model."""
        if rank > 0:
            return rank - 1, chunk
        return (self.pp - 1, chunk - 1) if chunk > 0 else None


class Vee:
    """Rank r holds the stages r and 2p - 1 - r of 2p: the model goes down the ranks and comes back."""

    chunks = 2

    def __init__(self, pp: int) -> None:
        self.pp = pp

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None for the first chunk of the model."""
        if chunk == 0:
            return (rank - 1, 0) if rank > 0 else None
        return (rank + 1, 1) if rank < self.pp - 1 else (rank, 0)


class Mirror:
    """Rank r holds the stages r and p - 1 - r of p, and micro-batches enter at both ends (DualPipe)."""

    chunks = 2

    def __init__(self, pp: int) -> None:
        self.pp = pp

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None where micro-batches enter."""
        if chunk == 0:
            return (rank - 1, 0) if rank > 0 else None
        return (rank + 1, 1) if rank < self.pp - 1 else None


Placement = Loop | Vee | Mirror


def require(holds: bool, schedule: str, setting: str, remedy: str) -> None:
    """Raise PlanError, with what to do, unless the schedule can run."""
    if not holds:
        raise PlanError(f"The schedule '{schedule}' cannot run with {setting}. {remedy}")
