"""The breakdown that prediction and measurement share, so that they can be compared term by term."""

from __future__ import annotations

from pydantic import NonNegativeFloat

from gnomon.spec._noun import Noun

TIME_TERMS = {
    "matmul_s": "matrix multiply",
    "attention_s": "attention",
    "elementwise_s": "normalisation and elementwise",
    "embedding_head_s": "embedding, head and loss",
    "recompute_s": "recomputation",
    "optimizer_s": "optimizer and clipping",
    "communication_s": "communication (exposed)",
    "bubble_s": "pipeline bubble",
    "data_s": "data",
    "idle_s": "launch overhead and idle",
}
# terms that only some layouts have; tables leave them out where they are zero
OPTIONAL_TERMS = ("recompute_s", "bubble_s")
MEMORY_TERMS = {
    "weights_bytes": "weights",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer state",
    "activations_bytes": "activations beyond the gradients",
    "communication_bytes": "communication buffers",
    "framework_bytes": "framework and allocator",
}


class TimeBreakdown(Noun):
    """Seconds of one optimizer step on one rank; the terms add up to the step time."""

    matmul_s: NonNegativeFloat = 0.0
    attention_s: NonNegativeFloat = 0.0
    elementwise_s: NonNegativeFloat = 0.0
    embedding_head_s: NonNegativeFloat = 0.0
    recompute_s: NonNegativeFloat = 0.0
    optimizer_s: NonNegativeFloat = 0.0
    communication_s: NonNegativeFloat = 0.0
    bubble_s: NonNegativeFloat = 0.0
    data_s: NonNegativeFloat = 0.0
    idle_s: NonNegativeFloat = 0.0

    @property
    def total_s(self) -> float:
        """Sum of all terms."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, float]:
        """Return {term: seconds} in display order."""
        return {term: getattr(self, term) for term in TIME_TERMS}


class MemoryBreakdown(Noun):
    """Bytes at the peak of one optimizer step on one rank; the terms add up to the peak."""

    weights_bytes: NonNegativeFloat = 0.0
    gradients_bytes: NonNegativeFloat = 0.0
    optimizer_bytes: NonNegativeFloat = 0.0
    activations_bytes: NonNegativeFloat = 0.0
    communication_bytes: NonNegativeFloat = 0.0
    framework_bytes: NonNegativeFloat = 0.0

    @property
    def total_bytes(self) -> float:
        """Peak memory of the rank."""
        return sum(self.as_dict().values())

    @property
    def tensor_bytes(self) -> float:
        """Peak memory without the framework's share."""
        return self.total_bytes - self.framework_bytes

    def as_dict(self) -> dict[str, float]:
        """Return {term: bytes} in display order."""
        return {term: getattr(self, term) for term in MEMORY_TERMS}
