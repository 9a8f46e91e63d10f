"""The problems of one evaluation as arrays: a scalar question is an array of one, a search an array of millions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.errors import PlanError
from gnomon.plan.arrays import Array, array
from gnomon.plan.network import Network
from gnomon.plan.rates import Rates, rates_of
from gnomon.plan.sizes import PRODUCTS, ModelSizes
from gnomon.spec import ClusterSpec, Layout, ModelSpec, StackSpec, Workload
from gnomon.spec.device_rates import operand_dtype
from gnomon.spec.layout import SCHEDULES

OPERAND_BYTES = {"fp32": 4.0, "tf32": 4.0, "fp16": 2.0, "bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5}
RECOMPUTES = ("none", "selective", "full", "per_op", "products")
PER_OP, SOME = RECOMPUTES.index("per_op"), RECOMPUTES.index("products")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A `Layout` as arrays."""

    dp: Array
    tp: Array
    pp: Array
    cp: Array
    ep: Array
    expert_tp: Array
    vpp: Array
    sequence_parallel: Array
    ring: Array
    schedule: Array
    zero_stage: Array
    shard_ranks: Array
    recompute: Array
    recompute_share: Array
    offload_activations: Array
    offload_optimizer: Array
    first_stage_layers: Array
    last_stage_layers: Array

    @classmethod
    def of(cls, layout: Layout) -> Split:
        """Return one layout as arrays of one; layers that are not given are -1."""
        replicas = layout.dp * layout.cp
        return cls(
            **{n: array(getattr(layout, n)) for n in ("dp", "tp", "pp", "cp", "ep", "expert_tp", "vpp", "zero_stage")},
            **{n: array(getattr(layout, n)) for n in ("recompute_share", "offload_activations", "offload_optimizer")},
            sequence_parallel=array(layout.sequence_parallel and layout.tp > 1),
            ring=array(layout.context_parallel == "ring"),
            schedule=array(SCHEDULES.index(layout.schedule)),
            shard_ranks=array(layout.shard_ranks or replicas),
            recompute=array(RECOMPUTES.index(layout.recompute)),
            first_stage_layers=array(-1 if layout.first_stage_layers is None else layout.first_stage_layers),
            last_stage_layers=array(-1 if layout.last_stage_layers is None else layout.last_stage_layers),
        )


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Bytes per element, and what the software stack does, as arrays."""

    compute_bytes: Array
    stream_bytes: Array
    operand_bytes: Array
    weight_bytes: Array
    gradient_bytes: Array
    master_bytes: Array
    masters: Array
    autocast: Array
    fused: Array
    fused_accumulation: Array
    fused_rmsnorm: Array
    asynchronous: Array
    run_ahead: Array
    dispatch_forward_s: Array
    dispatch_backward_s: Array
    dispatch_optimizer_s: Array
    collective_dispatch_s: Array
    step_overhead_s: Array
    overlap_tensor: Array
    overlap_data: Array
    overlap_piped: Array
    overlap_shard: Array
    shard_rate: Array
    gathers_each_pass: Array
    sharded_masters: Array
    post_validates: Array
    overlap_context: Array
    overlap_expert: Array
    passes: Array
    vocabulary_multiple: Array
    padded_values: Array
    fused_loss: Array
    stops_early: Array
    memory_overhead: Array
    framework_bytes: Array

    @classmethod
    def of(cls, stack: StackSpec, precision: str, cluster: ClusterSpec) -> Storage:
        """Return the storage of one precision under one stack; what was measured replaces the stack's constants."""
        compute = 4.0 if precision in ("fp32", "tf32") else 2.0
        autocast = stack.storage == "autocast" and compute < 4.0
        wide = stack.storage == "autocast" or compute == 4.0
        moments = min(stack.moment_bytes, compute) if stack.storage == "pure" else stack.moment_bytes
        masters = stack.storage == "mixed" and not wide
        measured = cluster.efficiency
        same = (
            "collective_dispatch_s",
            "step_overhead_s",
            "overlap_tensor",
            "overlap_shard",
            "shard_rate",
            "overlap_context",
        )
        return cls(
            **{name: array(getattr(stack, name)) for name in (*same, "overlap_expert")},
            run_ahead=array(1.0 if measured else stack.run_ahead),
            asynchronous=array(stack.asynchronous and (measured is None or measured.asynchronous)),
            dispatch_forward_s=array(measured.dispatch_forward_s if measured else stack.dispatch_s),
            dispatch_backward_s=array(measured.dispatch_backward_s if measured else stack.dispatch_s),
            dispatch_optimizer_s=array(measured.dispatch_optimizer_s if measured else 0.0),
            overlap_data=array(measured.communication_overlap if measured else stack.overlap_data),
            overlap_piped=array(measured is not None or stack.overlap_piped),
            memory_overhead=array(measured.allocator_overhead if measured else stack.memory_overhead),
            framework_bytes=array(measured.framework_bytes if measured else stack.framework_bytes),
            compute_bytes=array(compute),
            stream_bytes=array(4.0 if wide else 2.0),
            operand_bytes=array(OPERAND_BYTES[operand_dtype(precision)]),
            weight_bytes=array(4.0 if wide else 2.0),
            gradient_bytes=array(4.0 if wide else stack.gradient_bytes),
            master_bytes=array(2.0 * moments + 4.0 * masters),
            masters=array(masters),
            autocast=array(autocast),
            fused=array(stack.fused_elementwise),
            fused_accumulation=array(stack.fused_accumulation),
            fused_rmsnorm=array(cluster.accelerator.kind != "cpu"),
            gathers_each_pass=array(stack.gathers_each_pass),
            sharded_masters=array(stack.sharded_masters and not wide),
            post_validates=array(stack.post_validates),
            passes=array(stack.elementwise_passes),
            vocabulary_multiple=array(stack.vocabulary_multiple),
            padded_values=array(stack.padded_values),
            fused_loss=array(stack.fused_loss),
            stops_early=array(stack.stops_early),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases:
    """What one evaluation needs, arrays of shape (n,) or (1,) that broadcast against each other.

    Equal to itself alone, so that what is computed of it can be kept.
    """

    model: ModelSizes
    split: Split
    storage: Storage
    network: Network
    rates: Rates
    seq_len: Array
    encoder_seq_len: Array
    micro_batch: Array
    accumulation: Array
    causal: Array
    clipping: Array
    flash: Array
    dropout: Array
    imbalance: Array
    host_bandwidth: Array
    precision: str

    @classmethod
    def of(cls, model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload, stack: StackSpec) -> Cases:
        """Return one problem; raise LayoutError when the batch does not divide, PlanError without achieved rates."""
        flash = stack.flash_attention if workload.attention_kernel is None else workload.attention_kernel == "flash"
        capacity = workload.capacity_factor
        imbalance = workload.expert_imbalance if capacity is None else min(workload.expert_imbalance, capacity)
        if cluster.efficiency is None and cluster.rates is None:
            raise PlanError(
                f"The achieved rates of '{cluster.name}' are unknown. "
                "Measure it with gnomon calibrate, or choose a catalog cluster that has them."
            )
        return cls(
            model=ModelSizes.of(model),
            split=Split.of(layout),
            storage=Storage.of(stack, workload.precision, cluster),
            network=Network.of(cluster),
            rates=rates_of(cluster, workload.precision, stack.own_attention),
            seq_len=array(workload.seq_len),
            encoder_seq_len=array(workload.encoder_seq_len or 0),
            micro_batch=array(workload.micro_batch),
            accumulation=array(workload.accumulation(layout.dp)),
            causal=array(workload.attention_mask == "causal"),
            clipping=array(workload.gradient_clipping),
            flash=array(flash),
            dropout=array(workload.dropout),
            imbalance=array(imbalance),
            host_bandwidth=array(cluster.accelerator.host_bandwidth_bytes_per_s or np.inf),
            precision=workload.precision,
        )

    @property
    def rank_queries(self) -> Array:
        """Elements of one token's queries on one tensor-parallel rank."""
        return self.model.query / self.split.tp

    @property
    def rank_keys(self) -> Array:
        """Elements of one token's keys on one tensor-parallel rank: one head at least, of which the ranks beyond the
        number of key heads have copies."""
        return np.maximum(self.model.key_value / self.split.tp, self.model.head_dim)

    @property
    def value_width(self) -> Array:
        """Width of a head's values over that of its keys, which differ in latent attention."""
        return np.where(self.storage.padded_values > 0, 1.0, self.model.value_dim / self.model.head_dim)

    @property
    def rank_values(self) -> Array:
        """Elements of one token's values on one tensor-parallel rank."""
        return self.rank_keys * self.value_width

    @property
    def rank_attended(self) -> Array:
        """Elements of what attention returns for one token on one tensor-parallel rank."""
        return self.rank_queries * self.value_width

    @property
    def rank_vocab(self) -> Array:
        """Columns of the head on one tensor-parallel rank, with the padding that the software adds to a vocabulary."""
        multiple = np.where(self.model.conditioned > 0, 1.0, self.storage.vocabulary_multiple)
        share = self.model.vocab / self.split.tp
        return np.where(multiple > 1, np.ceil(share / multiple) * multiple, share)

    @property
    def last_product_again(self) -> Array:
        """1 where a dense layer's last product is computed again with it, else 0.

        What it returns goes into the next layer's input alone, which is kept, unless a gate or a norm follows.
        """
        alone = (self.model.conditioned == 0) & (self.model.norms_per_layer <= 2)
        return np.asarray(1.0 - self.storage.stops_early * alone)

    @property
    def overlap_data(self) -> Array:
        """Share of the gradient reduction that the backward pass may hide."""
        hides = (self.split.pp == 1) | (self.storage.overlap_piped > 0)
        return np.where(hides, self.storage.overlap_data, 0.0)

    @property
    def tokens(self) -> Array:
        """Tokens of one micro-batch on one rank, before tensor parallelism splits them."""
        return self.micro_batch * self.seq_len / self.split.cp

    @property
    def memory_tokens(self) -> Array:
        """Tokens that the encoder read of one micro-batch, to whose outputs the decoder attends."""
        return self.micro_batch * self.encoder_seq_len

    @property
    def crossed(self) -> Array:
        """1 where the layers of this half have a second attention, over what an encoder wrote; else 0."""
        return np.asarray((self.model.encoder_layers > 0) * 1.0)

    @property
    def stream_tokens(self) -> Array:
        """Tokens whose norms and residuals one rank computes (split over tp with sequence parallelism)."""
        return self.tokens / np.where(self.split.sequence_parallel > 0, self.split.tp, 1.0)

    @property
    def routed_tokens(self) -> Array:
        """Tokens that the busiest rank's experts compute: each token goes to `top_k` experts somewhere."""
        return self.tokens / self.split.tp * self.split.expert_tp * self.model.top_k * self.imbalance


def product_ways(cases: Cases, product: str) -> Array:
    """Return over how many ranks the matrices of a product are split, each expert's over those that share it."""
    how, layers = PRODUCTS[product]
    if layers == "expert":
        return cases.split.ep * cases.split.expert_tp
    return np.ones_like(cases.split.tp) if how == "replicated" else cases.split.tp
