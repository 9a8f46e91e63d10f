"""What one rank executes: operations in order, and where the chunks of the model lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["F", "B", "W"]
Place = tuple[int, int]  # (rank, chunk)


class Operation(NamedTuple):
    """One pass of one micro-batch through one chunk: forward, backward by input, or backward by weight.

    Where a program has no W of a micro-batch and chunk, its B computes both gradients.
    """

    kind: Kind
    chunk: int
    micro_batch: int


class Exchange(NamedTuple):
    """A transfer that two neighbours enter together and that holds both up until it is done."""

    partner: int


class Together(NamedTuple):
    """A forward and a backward of different micro-batches that start when both inputs are there and end as one."""

    forward: Operation
    backward: Operation


Program = list[Operation | Exchange | Together]


def operations(program: Program) -> Iterator[Operation]:
    """Yield the passes of a program in their order."""
    for item in program:
        if isinstance(item, Together):
            yield from item
        elif isinstance(item, Operation):
            yield item


def put_off(program: Program) -> set[tuple[int, int]]:
    """Return the (chunk, micro-batch) pairs whose gradient by weight has an operation of its own."""
    return {(op.chunk, op.micro_batch) for op in operations(program) if op.kind == "W"}


def peak_in_flight(program: Program) -> int:
    """Return the most activations of a chunk that a rank holds at once, from the start of F to the end of W (or B)."""
    separate = put_off(program)
    alive = peak = 0
    for op in operations(program):
        if op.kind == "F":
            alive += 1
            peak = max(peak, alive)
        elif op.kind == "W" or (op.chunk, op.micro_batch) not in separate:
            alive -= 1
    return peak


class Loop:
    """Stage s of the model lies on rank s mod p: one chunk per rank, or `chunks` of them (interleaved)."""

    def __init__(self, pp: int, chunks: int) -> None:
        self.pp = pp
        self.chunks = self.chunks_per_stage = chunks

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None for the first chunk of the model."""
        if rank > 0:
            return rank - 1, chunk
        return (self.pp - 1, chunk - 1) if chunk > 0 else None


class Vee:
    """Rank r holds the stages r and 2p - 1 - r of 2p: the model goes down the ranks and comes back."""

    chunks = chunks_per_stage = 2

    def __init__(self, pp: int) -> None:
        self.pp = pp

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None for the first chunk of the model."""
        if chunk == 0:
            return (rank - 1, 0) if rank > 0 else None
        return (rank + 1, 1) if rank < self.pp - 1 else (rank, 0)


class Mirror:
    """Rank r holds the stages r and p - 1 - r of p, and micro-batches enter at both ends (DualPipe)."""

    chunks, chunks_per_stage = 2, 1

    def __init__(self, pp: int) -> None:
        self.pp = pp

    def upstream(self, rank: int, chunk: int) -> Place | None:
        """Return where the activations of this chunk come from; None where micro-batches enter."""
        if chunk == 0:
            return (rank - 1, 0) if rank > 0 else None
        return (rank + 1, 1) if rank < self.pp - 1 else None


Placement = Loop | Vee | Mirror


def downstream(placement: Placement) -> dict[Place, Place]:
    """Return, for each place, where its activations go and its gradient comes from."""
    places = [(rank, chunk) for rank in range(placement.pp) for chunk in range(placement.chunks)]
    sources = {place: placement.upstream(*place) for place in places}
    return {source: place for place, source in sources.items() if source is not None}
