"""`Estimate`: what the planner predicts, broken down, with the inputs that it was made from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt

from gnomon.spec import ClusterSpec, FrozenMap, Layout, MemoryBreakdown, ModelSpec, Noun, TimeBreakdown, Workload

SCHEMA_VERSION = 1


class OperatorEstimate(Noun):
    """One kind of operator over a whole optimizer step on one rank."""

    name: str
    phase: Literal["forward", "backward", "optimizer", "communication", "data"]
    term: str = Field(description="the term of TimeBreakdown that it belongs to")
    calls: NonNegativeFloat
    flops: NonNegativeFloat
    traffic_bytes: NonNegativeFloat
    time_s: NonNegativeFloat = Field(description="time on the device, without launch overhead")
    launch_s: NonNegativeFloat = 0.0
    bound: Literal["compute", "memory", "launch", "network"]
    source: str = Field(description="the curve or formula that the time comes from")


class Estimate(Noun):
    """The prediction for one optimizer step. Rates are over all ranks unless their name says otherwise."""

    schema_version: int = SCHEMA_VERSION
    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    workload: Workload
    num_parameters: NonNegativeInt
    model_flops: NonNegativeFloat = Field(description="FLOPs that the model needs per step, over all ranks")
    step_time_s: NonNegativeFloat
    tokens_per_s: NonNegativeFloat
    mfu: NonNegativeFloat | None = Field(description="model FLOPs over peak; None when the peak is unknown")
    time: TimeBreakdown
    memory: MemoryBreakdown
    fits: bool | None = Field(description="peak memory against the device's; None when that is unknown")
    operators: tuple[OperatorEstimate, ...] = ()
    sources: FrozenMap[str, str] = Field(default_factory=dict, description="where each headline figure comes from")
    assumptions: tuple[str, ...] = ()
