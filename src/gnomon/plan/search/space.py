"""The layouts that a search looks at, numbered without being written down."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from gnomon.plan.stages import whole_chunks
from gnomon.spec import Layout, ModelSpec, Noun, Workload
from gnomon.spec.layout import SCHEDULES, Recompute, Schedule

Integers = NDArray[np.int64]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
# from the slowest to the fastest; the first six decide what one layer of one micro-batch costs, the next three which
# parameters a rank holds
INNER = ("tp", "cp", "ep", "expert_tp", "sequence_parallel", "micro_batch")
STATE = ("pp", "vpp", "zero_stage")
RUN = ("recompute", "offload_activations", "offload_optimizer")
OUTER = ("schedule", *RUN)
SHARED = (*INNER, *STATE)
AXES = (*SHARED, *OUTER)


class RecomputeChoice(Noun):
    """What is computed again, and in which share of the layers."""

    mode: Recompute
    share: float = Field(default=1.0, gt=0.0, le=1.0)


class SearchSpace(Noun):
    """The values of each axis; data parallelism takes the ranks that are left."""

    tp: tuple[PositiveInt, ...]
    pp: tuple[PositiveInt, ...]
    vpp: tuple[PositiveInt, ...] = (1,)
    cp: tuple[PositiveInt, ...] = (1,)
    ep: tuple[PositiveInt, ...] = (1,)
    expert_tp: tuple[PositiveInt, ...] = (1,)
    zero_stage: tuple[Literal[0, 1, 2, 3], ...] = (0, 1, 2, 3)
    micro_batch: tuple[PositiveInt, ...] = (1, 2, 4, 8)
    sequence_parallel: tuple[bool, ...] = (True, False)
    schedule: tuple[Schedule, ...] = ("1f1b", "zb-h1")
    recompute: tuple[RecomputeChoice, ...] = (
        RecomputeChoice(mode="none"),
        RecomputeChoice(mode="selective"),
        RecomputeChoice(mode="full"),
    )
    offload_activations: tuple[Share, ...] = (0.0,)
    offload_optimizer: tuple[Share, ...] = (0.0,)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for axis in AXES:
            values = getattr(self, axis)
            if not values:
                raise ValueError(f"{axis} has no values; leave it out or give at least one")
            if len(set(values)) != len(values):
                raise ValueError(f"{axis}={list(values)} names a value twice")
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values of each axis, in the order of AXES."""
        return tuple(len(getattr(self, axis)) for axis in AXES)

    @property
    def size(self) -> int:
        """Number of candidates."""
        return math.prod(self.shape)

    @property
    def num_states(self) -> int:
        """Number of combinations of the axes that decide what a layer costs and which parameters a rank holds."""
        return self.count(SHARED)

    def count(self, axes: tuple[str, ...]) -> int:
        """Return the number of combinations of some axes."""
        return math.prod(len(getattr(self, axis)) for axis in axes)

    def digits(self, numbers: Integers, axes: tuple[str, ...] = AXES) -> dict[str, Integers]:
        """Return the place of each candidate's value on every axis, of the numbers of combinations of `axes`."""
        found: dict[str, Integers] = {}
        rest = numbers
        for axis in reversed(axes):
            count = len(getattr(self, axis))
            if count == 1:
                found[axis] = np.zeros(1, dtype=np.int64)
            else:
                rest, found[axis] = np.divmod(rest, count)
        return found

    def layout(self, number: int, num_ranks: int, batch: Workload) -> tuple[Layout, Workload]:
        """Return the candidate as nouns."""
        digits = {axis: int(d[0]) for axis, d in self.digits(np.asarray([number])).items()}
        value = {axis: getattr(self, axis)[digit] for axis, digit in digits.items()}
        recompute = value.pop("recompute")
        micro_batch = value.pop("micro_batch")
        layout = Layout(
            **value,
            dp=num_ranks // (value["tp"] * value["pp"] * value["cp"]),
            recompute=recompute.mode,
            recompute_share=recompute.share,
        )
        return layout, batch.model_copy(update={"micro_batch": micro_batch})


def default_space(model: ModelSpec, num_ranks: int, per_node: int, batch: int) -> SearchSpace:
    """Return the layouts that practitioners would try: powers of two, and pipelines of whole chunks."""
    powers = [1 << i for i in range(num_ranks.bit_length()) if 1 << i <= num_ranks]
    moe = model.moe
    stages = [d for d in range(1, model.num_layers + 1) if num_ranks % d == 0 and d <= model.num_layers]
    pipelines = np.asarray([pp for pp in stages if pp > 1], dtype=np.int64)
    chunks = [v for v in range(1, 13) if v == 1 or np.any(whole_chunks(model.num_layers, pipelines * v))]
    return SearchSpace(
        tp=tuple(p for p in powers if p <= max(per_node, 8) and model.num_heads % p == 0),
        pp=tuple(stages),
        vpp=tuple(chunks),
        cp=tuple(p for p in powers if p <= 8),
        ep=tuple(p for p in powers if moe and moe.num_experts % p == 0) or (1,),
        expert_tp=tuple(p for p in powers if moe and p <= 8 and moe.expert_ffn_size % p == 0) or (1,),
        micro_batch=tuple(m for m in (1, 2, 4, 8, 16) if batch % m == 0),
        schedule=SCHEDULES,
        recompute=(
            RecomputeChoice(mode="none"),
            RecomputeChoice(mode="selective"),
            RecomputeChoice(mode="full"),
            RecomputeChoice(mode="full", share=0.5),
        ),
    )
