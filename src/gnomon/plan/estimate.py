"""`Estimate`: what the planner predicts, broken down, with the inputs that it was made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, model_validator

from gnomon.spec import ClusterSpec, FrozenMap, Layout, MemoryBreakdown, ModelSpec, Noun, TimeBreakdown, Workload

SCHEMA_VERSION = 2
SECONDS_PER_DAY = 86400.0


class OperatorEstimate(Noun):
    """One kind of operator or collective over a whole optimizer step on one rank of the slowest pipeline stage."""

    name: str
    phase: Literal["forward", "backward", "optimizer", "communication", "data"]
    term: str = Field(description="the term of TimeBreakdown that it belongs to")
    calls: NonNegativeFloat
    flops: NonNegativeFloat
    traffic_bytes: NonNegativeFloat = Field(description="moved in memory; of a collective: what one rank passes to it")
    time_s: NonNegativeFloat = Field(description="time on the device, without launch overhead")
    exposed_s: NonNegativeFloat | None = Field(
        default=None, description="of a collective: the part that the step waits for"
    )
    launch_s: NonNegativeFloat = 0.0
    bound: Literal["compute", "memory", "launch", "network"]
    tier: str = Field(default="", description="of a collective: the outermost network tier that it crosses")
    source: str = Field(description="the curve or formula that the time comes from")


class StageEstimate(Noun):
    """One kind of pipeline stage: what one of its ranks holds."""

    name: Literal["whole model", "first", "middle", "last"]
    num_layers: NonNegativeFloat
    num_parameters: NonNegativeFloat = Field(description="of one rank, before any sharding over replicas")
    micro_batches_in_flight: NonNegativeFloat = Field(description="most micro-batches whose activations are alive")
    memory: MemoryBreakdown
    fits: bool | None = Field(description="peak memory against the device's; None when that is unknown")


class StagePasses(Noun):
    """Seconds of one micro-batch on one pipeline stage, with what its passes wait for."""

    forward_s: NonNegativeFloat
    backward_input_s: NonNegativeFloat = Field(description="gradient by input, with what is computed again")
    backward_weight_s: NonNegativeFloat


class PipelineEstimate(Noun):
    """What the pipeline schedule costs."""

    schedule: str
    num_micro_batches: NonNegativeInt
    total_s: NonNegativeFloat = Field(
        description="from the first forward to the last backward; from step to step where ranks do not wait"
    )
    ranks_wait: bool = Field(default=True, description="whether ranks wait for one another at the update")
    bubble_s: NonNegativeFloat
    bubble_fraction: NonNegativeFloat = Field(description="bubble over total")
    send_s: NonNegativeFloat = Field(description="what the step would save if transfers between stages were free")
    passes: FrozenMap[str, StagePasses] = Field(
        default_factory=dict, description="of the first stage, of one between the ends, and of the last"
    )
    transfer_s: NonNegativeFloat = Field(
        default=0.0, description="of one micro-batch's activations, or their gradient, between neighbouring ranks"
    )


class Alternative(Noun):
    """A layout that fits where the one that was asked for does not."""

    changes: FrozenMap[str, Any] = Field(description="settings of layout and workload that differ")
    layout: Layout
    workload: Workload
    step_time_s: NonNegativeFloat
    peak_memory_bytes: NonNegativeFloat


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
    tokens_per_s_per_accelerator: NonNegativeFloat = 0.0
    tokens_per_day: NonNegativeFloat = 0.0
    mfu: NonNegativeFloat | None = Field(description="model FLOPs over peak; None when the peak is unknown")
    hfu: NonNegativeFloat | None = Field(
        default=None, description="model FLOPs and those computed again, over peak; None when the peak is unknown"
    )
    time: TimeBreakdown
    memory: MemoryBreakdown = Field(description="of the rank that needs the most")
    fits: bool | None = Field(description="peak memory against the device's; None when that is unknown")
    stages: tuple[StageEstimate, ...] = ()
    pipeline: PipelineEstimate | None = None
    activation_tensors: FrozenMap[str, NonNegativeFloat] = Field(
        default_factory=dict,
        description="bytes that one average layer keeps on its device for one micro-batch, by tensor; what is computed "
        "again, or lies in the host's memory, is not among them",
    )
    operators: tuple[OperatorEstimate, ...] = ()
    alternatives: tuple[Alternative, ...] = Field(default=(), description="layouts that fit, where this one does not")
    sources: FrozenMap[str, str] = Field(default_factory=dict, description="where each headline figure comes from")
    assumptions: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        """Derive the rates that follow from others; read version 1, which has neither stages nor recomputation."""
        if not isinstance(data, dict):
            return data
        version = data.get("schema_version", SCHEMA_VERSION)
        if version not in (1, SCHEMA_VERSION):
            raise ValueError(
                f"it has schema_version {version}; this gnomon reads 1 and {SCHEMA_VERSION}. "
                "Plan again with this version, or install the gnomon that wrote it"
            )
        derived: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        rate, layout = data.get("tokens_per_s"), data.get("layout")
        if isinstance(rate, int | float) and "tokens_per_day" not in data:
            derived["tokens_per_day"] = rate * SECONDS_PER_DAY
        if isinstance(rate, int | float) and "tokens_per_s_per_accelerator" not in data:
            ranks = layout.num_ranks if isinstance(layout, Layout) else Layout.from_mapping(layout or {}).num_ranks
            derived["tokens_per_s_per_accelerator"] = rate / ranks
        if "hfu" not in data:
            derived["hfu"] = data.get("mfu")
        return {**data, **derived}
