"""`Operator`: one kind of kernel of a training step, as arrays over cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gnomon.plan.arrays import Array

Phase = Literal["forward", "backward", "optimizer"]
Place = Literal["layer", "first", "last", "accumulation", "step"]


@dataclass(frozen=True, kw_only=True)
class Operator:
    """`calls` launches, each of `flops` FLOPs that moves `traffic_bytes`.

    `place` says what the calls count: per average layer and micro-batch, per micro-batch on the first or the last
    pipeline stage, per micro-batch after the first (`accumulation`), or per optimizer step. `point` locates the
    operator on its curve: (m, n, k, groups) of a product, (sequence length, head dimension) of attention. `launches`
    are calls of the host, `kernels` of the device. `again` is the part that recomputing the whole layer repeats.
    """

    name: str
    phase: Phase
    place: Place
    term: str
    curve: Literal["matmul", "attention", "memory"]
    key: str
    calls: Array
    flops: Array
    traffic_bytes: Array
    point: tuple[Array, ...] = ()
    launches: float | Array = 1.0
    kernels: float | Array = 1.0
    wide: bool = False
    again: float | Array = 1.0
