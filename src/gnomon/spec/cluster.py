"""`ClusterSpec`: accelerators, the nodes they sit in and the network tiers between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gnomon.errors import SpecError
from gnomon.spec._noun import FrozenMap, Noun
from gnomon.spec.curves import Efficiency
from gnomon.spec.device_rates import DeviceRates, Dtype, operand_dtype
from gnomon.units import parse_bytes


def _parse_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_bytes(value)
    except SpecError as error:
        raise ValueError(str(error)) from None


class AcceleratorSpec(Noun):
    """One device as its vendor describes it. Peaks are dense; a figure nobody publishes is absent, not guessed."""

    name: str
    vendor: str = ""
    kind: Literal["gpu", "tpu", "cpu", "asic"] = "gpu"
    peak_flops: FrozenMap[Dtype, PositiveFloat] = Field(default_factory=dict, description="dense FLOP/s by dtype")
    memory_bytes: Annotated[PositiveFloat | None, BeforeValidator(_parse_bytes)] = Field(
        default=None, description="a number, or text with a unit: 80 GiB"
    )
    memory_bandwidth_bytes_per_s: PositiveFloat | None = None
    host_bandwidth_bytes_per_s: PositiveFloat | None = Field(
        default=None, description="between the device and its host's memory, per direction"
    )
    tdp_w: PositiveFloat | None = None
    num_compute_units: PositiveInt | None = Field(
        default=None, description="units that share the tiles of a matrix product: SMs, compute units, tensor cores"
    )
    matrix_unit: PositiveInt | None = Field(
        default=None, description="side of a systolic matrix unit, which narrower heads do not fill; default: tiles"
    )
    source: str = ""
    notes: str = ""

    def peak(self, precision: str) -> float | None:
        """Return the dense peak of the operands of a precision (fp8 for mxfp8); None when it is unknown."""
        dtype = operand_dtype(precision)
        return next((flops for name, flops in self.peak_flops.items() if name == dtype), None)


class NetworkTier(Noun):
    """One level of the network: what connects `span` accelerators."""

    name: str
    span: PositiveInt = Field(description="accelerators that this tier connects")
    bandwidth_bytes_per_s: PositiveFloat = Field(description="per accelerator and direction")
    achieved: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share that large collectives reach where each ring has its adapters; default: the generation's",
    )
    latency_s: NonNegativeFloat = 0.0
    neighbours: PositiveInt | None = Field(
        default=None, description="accelerators to each of which an equal part of the links goes; default: a switch"
    )
    torus_axes: PositiveInt | None = Field(
        default=None, description="axes of a torus, each with an equal part of the links; default: a switch"
    )
    source: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.neighbours is not None and self.torus_axes is not None:
            raise ValueError("a tier has neighbours or torus_axes, not both; leave one out")
        return self


MOST_TIERS = 4  # such as NVLink, leaf switches, spine, wide-area network


class ClusterSpec(Noun):
    """`num_nodes` equal nodes. `tiers` are ordered from the innermost to the outermost."""

    name: str
    accelerator: AcceleratorSpec
    accelerators_per_node: PositiveInt
    num_nodes: PositiveInt = 1
    tiers: tuple[NetworkTier, ...] = Field(default=(), max_length=MOST_TIERS)
    efficiency: Efficiency | None = Field(default=None, description="achieved rates that were measured")
    rates: DeviceRates | None = Field(default=None, description="achieved rates of the accelerator's generation")
    peak_source: str = Field(
        default="", description="where peak_flops comes from, printed beside each MFU; default: from the description"
    )
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _describe_peak(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("peak_source"):
            return data
        accelerator = data.get("accelerator")
        name = accelerator.get("name") if isinstance(accelerator, Mapping) else getattr(accelerator, "name", None)
        return {**data, "peak_source": f"peak of '{name}' as described"}

    @model_validator(mode="after")
    def _check(self) -> Self:
        spans = [tier.span for tier in self.tiers]
        if spans != sorted(set(spans)):
            raise ValueError(f"tiers must be ordered from the innermost to the outermost; their spans are {spans}")
        return self

    @property
    def num_accelerators(self) -> int:
        """Accelerators in the whole cluster."""
        return self.accelerators_per_node * self.num_nodes

    def tier_for(self, ranks: int) -> NetworkTier | None:
        """Return the innermost tier that connects `ranks` neighbouring accelerators, or None if none does."""
        return next((tier for tier in self.tiers if tier.span >= ranks), None)
