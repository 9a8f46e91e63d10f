"""The YAML schema of dlcalc's `3dtrn`, key for key."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, StrictBool, model_validator

from gnomon.spec import Noun

Count = Annotated[int, Field(strict=True, gt=0)]
Checkpointing = Literal["none", "selective", "super-selective", "full"]


class MoESection(Noun):
    """`model.moe`: experts in place of the feed-forward of some layers."""

    n_experts: Count
    expert_inter_sz: Count
    experts_per_token: Count
    capacity_factor: PositiveFloat
    moe_frequency: Annotated[float, Field(ge=0.0, le=1.0)] = Field(description="share of the layers that have experts")
    expert_tp_degree: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.experts_per_token > self.n_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} exceeds n_experts={self.n_experts}; a token cannot be "
                "routed to more experts than there are"
            )
        return self


class ModelSection(Noun):
    """`model`: sizes of a decoder-only transformer."""

    n_layers: Count
    hidden_sz: Count
    inter_sz: Count
    n_q_heads: Count
    n_kv_heads: Count
    head_dim: Count
    vocab_sz: Count
    glu: StrictBool
    rotary_embeds: StrictBool
    dropout: StrictBool
    tie_embeddings: StrictBool
    moe: MoESection | None = None

    def num_moe_layers(self) -> int:
        """Return how many layers have experts; raise ValueError when the share is no whole number of layers."""
        if self.moe is None:
            return 0
        layers = self.moe.moe_frequency * self.n_layers
        whole = round(layers)
        if abs(layers - whole) > 1e-6 * self.n_layers:
            near = [n for n in (int(layers), int(layers) + 1) if n <= self.n_layers]
            raise ValueError(
                f"model.moe.moe_frequency={self.moe.moe_frequency:g} of n_layers={self.n_layers} is {layers:g} layers; "
                f"the nearest that are whole: {' or '.join(f'{n / self.n_layers:.6f} ({n} layers)' for n in near)}"
            )
        return whole


class ParallelismSection(Noun):
    """`parallelism`: degrees."""

    tp: Count
    cp: Count = 1
    pp: Count
    dp: Count
    ep: Count | None = Field(default=None, description="required with model.moe")
    vpp: Count
    sp: StrictBool
    zero_level: Annotated[int, Field(strict=True, ge=0, le=3)]
    n_param_buckets: Count


class PerformanceSection(Noun):
    """`performance`."""

    activation_checkpointing_type: Checkpointing


class DataSection(Noun):
    """`data`: sequences per step and per forward pass, and their length."""

    gbs: Count
    seqlen: Count
    microbatch_sz: Count


class HardwareSection(Noun):
    """`hardware`."""

    node_type: str = Field(description="an instance type, a cluster of the catalog, or the path of a cluster's file")


class CrossDCSection(Noun):
    """`cross_dc`: data parallelism over several datacentres."""

    n_dcs: Count
    interconnect_bandwidth_gbps: PositiveFloat = Field(description="of all links of one datacentre together, Gb/s")
    interconnect_latency_s: NonNegativeFloat


class TrainingConfig(Noun):
    """A whole configuration file."""

    model: ModelSection
    parallelism: ParallelismSection
    performance: PerformanceSection
    data: DataSection
    hardware: HardwareSection
    cross_dc: CrossDCSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        degrees = self.parallelism
        self.model.num_moe_layers()
        if self.model.moe is not None and degrees.ep is None:
            raise ValueError("missing key 'parallelism.ep': model.moe needs it; ep=1 keeps all experts on each rank")
        return self
