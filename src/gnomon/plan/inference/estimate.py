"""`InferenceEstimate`: what the planner predicts of a served model, broken down."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from gnomon.plan.inference.workload import InferenceWorkload
from gnomon.spec import ClusterSpec, FrozenMap, Layout, ModelSpec, Noun

SCHEMA_VERSION = 1
INFERENCE_TIME_TERMS = {
    "weights_s": "reading weights",
    "kv_cache_s": "reading the key-value cache",
    "activations_s": "reading and writing activations",
    "compute_s": "computation",
    "communication_s": "communication",
    "launch_s": "launches and gaps between kernels",
    "pipeline_s": "waiting for other pipeline stages",
}
INFERENCE_MEMORY_TERMS = {
    "weights_bytes": "weights",
    "kv_cache_bytes": "key-value cache",
    "activations_bytes": "activations",
    "framework_bytes": "framework",
}


class InferenceTime(Noun):
    """Seconds of one prefill or one decode step by what bounds them; the terms add up."""

    weights_s: NonNegativeFloat = 0.0
    kv_cache_s: NonNegativeFloat = 0.0
    activations_s: NonNegativeFloat = 0.0
    compute_s: NonNegativeFloat = 0.0
    communication_s: NonNegativeFloat = 0.0
    launch_s: NonNegativeFloat = 0.0
    pipeline_s: NonNegativeFloat = 0.0

    @property
    def total_s(self) -> float:
        """Sum of all terms."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, float]:
        """Return {term: seconds} in display order."""
        return {term: getattr(self, term) for term in INFERENCE_TIME_TERMS}


class InferenceMemory(Noun):
    """Bytes of the rank that needs the most, with every sequence at its full length."""

    weights_bytes: NonNegativeFloat = 0.0
    kv_cache_bytes: NonNegativeFloat = 0.0
    activations_bytes: NonNegativeFloat = 0.0
    framework_bytes: NonNegativeFloat = 0.0

    @property
    def total_bytes(self) -> float:
        """Sum of all terms."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, float]:
        """Return {term: bytes} in display order."""
        return {term: getattr(self, term) for term in INFERENCE_MEMORY_TERMS}


class ServingPoint(Noun):
    """One batch of the curve of throughput against latency."""

    batch: PositiveInt = Field(description="sequences that a replica decodes together")
    ttft_s: PositiveFloat
    tpot_s: PositiveFloat
    request_s: PositiveFloat
    tokens_per_s: PositiveFloat = Field(description="output tokens of all replicas")
    memory_bytes: PositiveFloat
    fits: bool | None


class InferenceEstimate(Noun):
    """The prediction for requests of one length on replicas of one layout."""

    schema_version: int = SCHEMA_VERSION
    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    workload: InferenceWorkload
    num_parameters: NonNegativeInt
    weights_bytes: NonNegativeFloat = Field(description="of one copy of the model")
    kv_bytes_per_token: NonNegativeFloat = Field(description="of the whole model, before any sliding window is full")
    kv_bytes_per_sequence: NonNegativeFloat = Field(description="of the whole model, at full length")
    distinct_experts: NonNegativeFloat | None = Field(
        description="that the tokens of one decode step are expected to need per layer; None without experts"
    )
    ttft_s: PositiveFloat = Field(description="time to first token: one prefill, without queueing")
    tpot_s: PositiveFloat = Field(description="time per output token: one decode step at the mean context")
    request_s: PositiveFloat = Field(description="first to last token of a request that nothing interrupts")
    tokens_per_s: PositiveFloat = Field(description="output tokens of all replicas, prefill and decode in turn")
    tokens_per_s_per_accelerator: PositiveFloat
    prefill: InferenceTime
    decode: InferenceTime
    prefill_mfu: NonNegativeFloat | None = Field(description="forward FLOPs over peak; None when the peak is unknown")
    decode_mbu: NonNegativeFloat | None = Field(
        description="bytes of weights and cache that a decode step needs, over what peak bandwidth moves in its time"
    )
    memory: InferenceMemory
    fits: bool | None = Field(description="memory against the usable part of the device's; None when that is unknown")
    max_batch: NonNegativeInt | None = Field(description="most sequences of a replica that fit; None when unknown")
    curve: tuple[ServingPoint, ...] = Field(default=(), description="batches up to the largest that fits")
    sources: FrozenMap[str, str] = Field(default_factory=dict)
    assumptions: tuple[str, ...] = ()
