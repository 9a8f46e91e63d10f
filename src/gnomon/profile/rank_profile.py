"""`RankProfile`: what the profiling worker of one rank found; the file `traces/rank-N.summary.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gnomon.profile.measurement import OperatorMeasurement
from gnomon.spec import FrozenMap, MemoryBreakdown, Noun

SCHEMA_VERSION = 1


class RankProfile(Noun):
    """The typical profiled step of one rank, and its memory."""

    schema_version: int = SCHEMA_VERSION
    rank: NonNegativeInt
    device: str
    num_profiled_steps: PositiveInt
    profiled_step_time_s: NonNegativeFloat
    terms: FrozenMap[str, NonNegativeFloat] = Field(description="seconds of each term but idle, while profiled")
    operators: tuple[OperatorMeasurement, ...] = ()
    weights_bytes: NonNegativeFloat
    gradients_bytes: NonNegativeFloat
    optimizer_bytes: NonNegativeFloat
    communication_bytes: NonNegativeFloat
    peak_tensor_bytes: NonNegativeFloat
    baseline_memory_bytes: NonNegativeFloat = Field(description="resident memory before the model is made")
    peak_memory_bytes: NonNegativeFloat = Field(description="resident on a CPU, reserved on CUDA; without profiler")
    versions: FrozenMap[str, str] = Field(default_factory=dict)

    @property
    def memory(self) -> MemoryBreakdown:
        """The peak in the planner's terms: activations are what tensors need beyond the other terms."""
        state = self.weights_bytes + self.gradients_bytes + self.optimizer_bytes + self.communication_bytes
        return MemoryBreakdown(
            weights_bytes=self.weights_bytes,
            gradients_bytes=self.gradients_bytes,
            optimizer_bytes=self.optimizer_bytes,
            activations_bytes=max(0.0, self.peak_tensor_bytes - state),
            communication_bytes=self.communication_bytes,
            framework_bytes=max(0.0, self.peak_memory_bytes - self.peak_tensor_bytes),
        )


def summary_path(folder: Path, rank: int) -> Path:
    """Return where the profile of a rank is kept."""
    return folder / f"rank-{rank}.summary.json"


def trace_path(folder: Path, rank: int) -> Path:
    """Return where the trace of a rank is kept."""
    return folder / f"rank-{rank}.json.gz"
