"""`HardwareProfile`: what one machine was measured to achieve."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveInt

from gnomon.errors import SpecError
from gnomon.spec._noun import FrozenMap, Noun
from gnomon.spec.cluster import AcceleratorSpec, ClusterSpec, NetworkTier
from gnomon.spec.curves import Efficiency

SCHEMA_VERSION = 1
UNSTEADY_SPREAD = 0.35  # an idle machine stays below 0.15


class HardwareProfile(Noun):
    """A machine measured by `gnomon calibrate`.

    `shares` holds one `Efficiency` per number of ranks on the node, because ranks on a CPU share its cores and
    memory bandwidth: two ranks with one thread each are not two halves of one rank with two threads.
    """

    schema_version: int = SCHEMA_VERSION
    created: str = Field(description="UTC date and time, ISO 8601")
    duration_s: NonNegativeFloat = 0.0
    accelerator: AcceleratorSpec
    accelerators_per_node: PositiveInt = 1
    tier: NetworkTier | None = None
    shares: FrozenMap[PositiveInt, Efficiency]
    spread: FrozenMap[str, NonNegativeFloat] = Field(
        default_factory=dict, description="median over benchmarks of (p90 - p10) / median, by group"
    )
    versions: FrozenMap[str, str] = Field(default_factory=dict)

    def cluster(self, num_ranks: int) -> ClusterSpec:
        """Return this machine as a cluster for `num_ranks` ranks; raise SpecError if that share was not measured."""
        efficiency = self.shares.get(num_ranks)
        if efficiency is None:
            raise SpecError(
                f"The hardware profile of '{self.accelerator.name}' was measured with {sorted(self.shares)} rank(s) "
                f"on the node, not {num_ranks}. Measure that too: gnomon calibrate --ranks {num_ranks}."
            )
        return ClusterSpec(
            name=self.accelerator.name,
            accelerator=self._accelerator(num_ranks, efficiency),
            accelerators_per_node=max(self.accelerators_per_node, num_ranks),
            tiers=(self.tier,) if self.tier else (),
            efficiency=efficiency,
            peak_source="catalog" if self.accelerator.peak_flops else "highest measured matrix-multiply rate",
            source=f"measured {self.created}{', while the machine was busy' if self.unsteady() else ''}",
        )

    def unsteady(self) -> str:
        """Return a warning when the machine was disturbed while it was measured, else an empty string."""
        worst = max(
            (item for item in self.spread.items() if item[0].startswith(("matmul", "attention"))),
            key=lambda item: item[1],
            default=("", 0.0),
        )
        if worst[1] < UNSTEADY_SPREAD:
            return ""
        return (
            f"The machine was busy while it was measured: {worst[0]} spread over {worst[1]:.0%} of its median. "
            "Predictions will be off; calibrate again when nothing else runs."
        )

    def _accelerator(self, num_ranks: int, efficiency: Efficiency) -> AcceleratorSpec:
        """Return what one rank has: its share of a CPU's memory, and measured peaks where no catalog has any."""
        accelerator = self.accelerator
        update: dict[str, object] = {}
        if accelerator.kind == "cpu" and accelerator.memory_bytes is not None:
            update["memory_bytes"] = accelerator.memory_bytes / num_ranks
        if not accelerator.peak_flops:
            update["peak_flops"] = measured_peaks(efficiency)
        return AcceleratorSpec.from_mapping({**accelerator.to_mapping(), **update})


def measured_peaks(efficiency: Efficiency) -> dict[str, float]:
    """Return the highest matrix-multiply rate (FLOP/s) of each dtype."""
    peaks: dict[str, float] = {}
    for key, curve in efficiency.matmul.items():
        dtype = key.split(".")[0]
        peaks[dtype] = max(peaks.get(dtype, 0.0), *curve.rate)
    return peaks
