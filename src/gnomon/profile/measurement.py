"""`Measurement`: what a run and its profiler saw, in the breakdown of the planner."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gnomon.spec import FrozenMap, Layout, MemoryBreakdown, ModelSpec, Noun, TimeBreakdown, Workload

SCHEMA_VERSION = 1


class OperatorMeasurement(Noun):
    """One operator of the framework over one optimizer step."""

    name: str
    term: str = Field(description="the term of TimeBreakdown that it was mapped to")
    calls: NonNegativeFloat
    time_s: NonNegativeFloat


class Measurement(Noun):
    """Medians over the steady steps of a run (not profiled), split into terms by the profiled steps."""

    schema_version: int = SCHEMA_VERSION
    model: ModelSpec
    layout: Layout
    workload: Workload
    device: str
    num_steps: PositiveInt = Field(description="steady steps behind step_time_s")
    step_time_s: NonNegativeFloat
    step_time_p10_s: NonNegativeFloat
    step_time_p90_s: NonNegativeFloat
    tokens_per_s: NonNegativeFloat
    model_flops: NonNegativeFloat
    mfu: NonNegativeFloat | None = None
    time: TimeBreakdown
    memory: MemoryBreakdown
    peak_memory_bytes: NonNegativeFloat = Field(description="resident memory on a CPU, reserved memory on CUDA")
    peak_tensor_bytes: NonNegativeFloat = Field(description="tensors alive at the peak, from the profiler")
    num_profiled_steps: NonNegativeInt = 0
    profiled_step_time_s: NonNegativeFloat = Field(default=0.0, description="a step while the profiler watches")
    operators: tuple[OperatorMeasurement, ...] = ()
    loss_first: float | None = None
    loss_last: float | None = None
    versions: FrozenMap[str, str] = Field(default_factory=dict)
