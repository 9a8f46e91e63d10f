"""`Layout`: how a model is split over ranks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from gnomon.errors import nearest_divisors
from gnomon.spec._noun import Noun

Schedule = Literal["gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe"]
Recompute = Literal["none", "selective", "full", "per_op", "products"]
ContextParallel = Literal["ring", "all_to_all"]

SCHEDULES: tuple[Schedule, ...] = ("gpipe", "1f1b", "zb-h1", "zb-h2", "zb-v", "v-half", "v-min", "dualpipe")
V_SHAPED_SCHEDULES = ("zb-v", "v-half", "v-min", "dualpipe")


class Layout(Noun):
    """Degrees of parallelism. Ranks are numbered with `tp` fastest: one reshape to (pp, dp, cp, tp)."""

    dp: PositiveInt = Field(default=1, description="data-parallel replicas")
    tp: PositiveInt = Field(default=1, description="tensor-parallel ranks")
    pp: PositiveInt = Field(default=1, description="pipeline stages")
    cp: PositiveInt = Field(default=1, description="context-parallel ranks")
    ep: PositiveInt = Field(default=1, description="expert-parallel ranks, out of dp x cp x tp")
    expert_tp: PositiveInt = Field(default=1, description="tensor-parallel ranks of one expert")
    vpp: PositiveInt = Field(default=1, description="model chunks per pipeline rank (interleaved schedule)")
    sequence_parallel: bool = Field(default=True, description="norms and residuals are split over tp too (Megatron)")
    context_parallel: ContextParallel = "ring"
    schedule: Schedule = "1f1b"
    zero_stage: Literal[0, 1, 2, 3] = Field(default=0, description="3 is also PyTorch's FSDP")
    shard_ranks: int | None = Field(
        default=None, gt=0, description="ranks that share one copy of the sharded states; default: dp x cp"
    )
    recompute: Recompute = Field(
        default="none",
        description="selective: the attention scores alone; per_op: every second product and what lies between "
        "products (PyTorch's selective checkpointing of operators); products: a share of each layer's products, not "
        "attention (modules of Megatron-Core, policies of MaxText)",
    )
    recompute_share: float = Field(
        default=1.0, gt=0.0, le=1.0, description="share of the layers that recompute, or of each layer's products"
    )
    offload_activations: float = Field(default=0.0, ge=0.0, le=1.0, description="share kept in the host's memory")
    offload_optimizer: float = Field(default=0.0, ge=0.0, le=1.0, description="share kept in the host's memory")
    first_stage_layers: int | None = Field(default=None, ge=0, description="default: as many as the others")
    last_stage_layers: int | None = Field(default=None, ge=0, description="default: as many as the others")

    @model_validator(mode="after")
    def _check(self) -> Self:
        replicas = self.dp * self.cp * self.tp
        if replicas % (self.ep * self.expert_tp):
            raise ValueError(
                f"ep={self.ep} x expert_tp={self.expert_tp} does not divide dp x cp x tp = {replicas}; "
                f"the nearest values that do: {self._nearest_experts(replicas)}"
            )
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp={self.vpp} needs a pipeline, but pp=1; set pp > 1 or vpp=1")
        if self.vpp > 1 and self.schedule != "1f1b":
            raise ValueError(f"vpp={self.vpp} interleaves 1f1b only, not schedule='{self.schedule}'; set vpp=1")
        if self.shard_ranks is not None and (self.dp * self.cp) % self.shard_ranks:
            near = nearest_divisors("shard_ranks", self.shard_ranks, self.dp * self.cp)
            raise ValueError(
                f"shard_ranks={self.shard_ranks} does not divide dp x cp = {self.dp * self.cp}; "
                f"the nearest values that do: {near}"
            )
        return self

    def _nearest_experts(self, replicas: int) -> str:
        """Return what to set instead of a split of experts that does not divide `replicas` ranks: ep where one can
        help, else expert_tp, else both."""
        if replicas % self.expert_tp == 0:
            return nearest_divisors("ep", self.ep, replicas // self.expert_tp)
        if replicas % self.ep == 0:
            return nearest_divisors("expert_tp", self.expert_tp, replicas // self.ep)
        ep = max(d for d in range(1, min(self.ep, replicas) + 1) if replicas % d == 0)
        return f"ep={ep} with {nearest_divisors('expert_tp', self.expert_tp, replicas // ep)}"

    @property
    def num_ranks(self) -> int:
        """Ranks that this layout needs (experts share the data-parallel ranks)."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def is_data_parallel(self) -> bool:
        """Whether each rank has the whole model, and ranks differ in their batch alone."""
        return self.num_ranks == self.dp and self.ep == 1 and self.zero_stage == 0

    @property
    def expert_dp(self) -> int:
        """Copies of each expert."""
        return self.dp * self.cp * self.tp // (self.ep * self.expert_tp)
