"""From a configuration in dlcalc's schema to the nouns of the planner."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gnomon.errors import LayoutError
from gnomon.plan.checks import check_degrees
from gnomon.plan.training_3d.clusters import nodes_of
from gnomon.plan.training_3d.keys import LAYOUT_KEYS, MODEL_KEYS, MOE_KEYS, WORKLOAD_KEYS, schema_words
from gnomon.plan.training_3d.schema import TrainingConfig
from gnomon.spec import ClusterSpec, Layout, ModelSpec, StackSpec, Workload
from gnomon.spec.catalog import load_stack

STACK = "megatron-core"


@dataclass(frozen=True, kw_only=True)
class Datacentres:
    """Data parallelism over `count` equal datacentres, each with `replicas` of the model.

    `bandwidth_bytes_per_s` is of one datacentre's accelerators together, per direction.
    """

    count: int
    replicas: int
    bandwidth_bytes_per_s: float
    latency_s: float


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A training step as the planner's nouns, and what was assumed to get there.

    `num_buckets` is None where something else decides how gradients are cut: the layers with ZeRO-3, what was measured.
    `recompute_activations` is dlcalc's super-selective checkpointing, on top of the selective one of the layout.
    """

    config: TrainingConfig
    model: ModelSpec
    cluster: ClusterSpec
    layout: Layout
    workload: Workload
    stack: StackSpec
    datacentres: Datacentres | None
    num_buckets: int | None
    recompute_activations: bool
    assumptions: tuple[str, ...]

    @property
    def num_micro_batches(self) -> int:
        """Micro-batches per step and rank."""
        return self.workload.accumulation(self.layout.dp)


def build_problem(config: TrainingConfig, name: str = "model", stack: StackSpec | None = None) -> Problem:
    """Return the problem that `config` describes, its model called `name`, with the software `stack`.

    Raises LayoutError for degrees that do not divide, CatalogError for an unknown node type, SpecError otherwise.
    """
    degrees = config.parallelism
    _check_batch(config)
    datacentres = _datacentres(config)
    with schema_words():
        layout = _layout(config, datacentres)
        model = _model(config, name)
    _check_experts_stay(layout, datacentres)
    sites = datacentres.count if datacentres else 1
    nodes = nodes_of(config.hardware.node_type, layout.num_ranks, layout.num_ranks // sites)
    workload = _workload(config, nodes.cluster)
    with schema_words():
        check_degrees(model, layout, workload)
    cut_elsewhere = degrees.zero_level == 3 or nodes.cluster.efficiency is not None
    return Problem(
        config=config,
        model=model,
        cluster=nodes.cluster,
        layout=layout,
        workload=workload,
        stack=stack or load_stack(STACK),
        datacentres=datacentres,
        num_buckets=None if cut_elsewhere else degrees.n_param_buckets,
        recompute_activations=config.performance.activation_checkpointing_type == "super-selective",
        assumptions=(*nodes.assumptions, *_assumptions(config, layout, workload)),
    )


def _check_batch(config: TrainingConfig) -> None:
    degrees, data = config.parallelism, config.data
    per_pass = degrees.dp * data.microbatch_sz
    if data.gbs % per_pass:
        below, above = data.gbs // per_pass * per_pass, -(-data.gbs // per_pass) * per_pass
        raise LayoutError(
            f"data.gbs={data.gbs} does not divide by parallelism.dp={degrees.dp} x data.microbatch_sz="
            f"{data.microbatch_sz} = {per_pass}. Set gbs to {f'{below} or ' if below else ''}{above}."
        )
    micro_batches = data.gbs // per_pass
    if degrees.vpp > 1 and micro_batches < degrees.pp:
        raise LayoutError(
            f"parallelism.vpp={degrees.vpp} interleaves groups of pp={degrees.pp} micro-batches, but each replica has "
            f"{micro_batches}. Set data.gbs >= {degrees.pp * per_pass}, or vpp to 1."
        )


def _datacentres(config: TrainingConfig) -> Datacentres | None:
    cross, dp = config.cross_dc, config.parallelism.dp
    if cross is None or cross.n_dcs == 1:
        return None
    if dp % cross.n_dcs:
        near = divisors(dp)
        lower = [d for d in near if d < cross.n_dcs][-1:]
        higher = [d for d in near if d > cross.n_dcs][:1]
        reason = f"exceeds parallelism.dp={dp}" if cross.n_dcs > dp else f"does not divide parallelism.dp={dp}"
        raise LayoutError(
            f"cross_dc.n_dcs={cross.n_dcs} {reason}: each datacentre holds the same number of whole replicas. "
            f"Set n_dcs to {' or '.join(map(str, lower + higher))}, or another dp."
        )
    return Datacentres(
        count=cross.n_dcs,
        replicas=dp // cross.n_dcs,
        bandwidth_bytes_per_s=cross.interconnect_bandwidth_gbps * 1e9 / 8.0,
        latency_s=cross.interconnect_latency_s,
    )


def divisors(number: int) -> list[int]:
    """Return the divisors of a positive number, ascending, in the square root of it."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*small, *(number // d for d in small)})


def _layout(config: TrainingConfig, datacentres: Datacentres | None) -> Layout:
    degrees = config.parallelism
    checkpointing = config.performance.activation_checkpointing_type
    fields = {
        **{name: getattr(degrees, key) for name, key in LAYOUT_KEYS.items()},
        "ep": (degrees.ep or 1) if config.model.moe else 1,  # without experts dlcalc does not look at it
        "expert_tp": config.model.moe.expert_tp_degree if config.model.moe else 1,
        "recompute": "selective" if checkpointing == "super-selective" else checkpointing,
    }
    if datacentres is not None and degrees.zero_level == 3:
        # weights are gathered layer by layer, which a link between datacentres is too slow for
        fields["shard_ranks"] = datacentres.replicas * degrees.cp
    return Layout.from_mapping(fields, where="parallelism and model.moe" if config.model.moe else "parallelism")


def _check_experts_stay(layout: Layout, datacentres: Datacentres | None) -> None:
    if datacentres is None:
        return
    ranks = datacentres.replicas * layout.cp * layout.tp
    if ranks % (layout.ep * layout.expert_tp):
        raise LayoutError(
            f"ep={layout.ep} x expert_tp_degree={layout.expert_tp} does not divide the {ranks} ranks that a pipeline "
            f"stage has in each of {datacentres.count} datacentres, so tokens would travel between datacentres. "
            "Choose smaller ep, or fewer n_dcs."
        )


def _model(config: TrainingConfig, name: str) -> ModelSpec:
    section = config.model
    fields = {
        "name": name,
        **{field: getattr(section, key) for field, key in MODEL_KEYS.items()},
        "max_seq_len": config.data.seqlen,
        "activation": "silu" if section.glu else "gelu",
        "gated_mlp": section.glu,
        "norm": "rmsnorm",
        "position": "rope" if section.rotary_embeds else "none",
    }
    if section.moe is not None:
        fields["moe"] = {
            **{field: getattr(section.moe, key) for field, key in MOE_KEYS.items()},
            **_pattern(section.n_layers, section.num_moe_layers()),
        }
    return ModelSpec.from_mapping(fields, where="model")


def _pattern(layers: int, moe_layers: int) -> dict[str, int]:
    """Return which layers have experts: each how-manieth where their share is one of so many.

    A ModelSpec has no words for other shares; their dense layers are counted here and spread by `evaluate_step`.
    """
    if moe_layers and layers % moe_layers == 0:
        return {"moe_layer_period": layers // moe_layers}
    return {"num_dense_layers": layers - moe_layers}


def _workload(config: TrainingConfig, cluster: ClusterSpec) -> Workload:
    data, moe = config.data, config.model.moe
    peaks = cluster.accelerator.peak_flops
    capacity = moe.capacity_factor if moe else None
    return Workload(
        **{field: getattr(data, key) for field, key in WORKLOAD_KEYS.items()},
        precision="fp16" if "bf16" not in peaks and "fp16" in peaks else "bf16",
        stack=STACK,
        dropout=config.model.dropout,
        # every expert computes its whole capacity: tokens beyond it are dropped, room that is left is padded
        expert_imbalance=max(1.0, capacity or 1.0),
        capacity_factor=capacity,
    )


def _assumptions(config: TrainingConfig, layout: Layout, workload: Workload) -> tuple[str, ...]:
    lines = [f"software: the catalog's stack '{STACK}' ({workload.precision}, AdamW with fp32 master weights)"]
    if config.model.moe is None and (config.parallelism.ep or 1) > 1:
        lines.append(f"parallelism.ep={config.parallelism.ep} splits nothing: the model has no experts")
    micro_batches = workload.accumulation(layout.dp)
    if layout.vpp > 1 and micro_batches % layout.pp:
        below = micro_batches // layout.pp * layout.pp
        lines.append(
            f"interleaving needs a multiple of pp={layout.pp} micro-batches, which {micro_batches} is not: the time is "
            f"taken on the line from {below} to {below + layout.pp}"
        )
    if layout.zero_stage == 3:
        lines.append("zero_level 3 gathers and scatters layer by layer: n_param_buckets does not apply")
    if layout.shard_ranks is not None:
        lines.append(f"zero_level 3 shards over the {layout.shard_ranks} replicas of one datacentre, not over all")
    lines += _spread(config)
    if config.performance.activation_checkpointing_type == "selective":
        lines.append("selective recomputes the attention scores, which flash attention never stores")
    return tuple(lines)


def _spread(config: TrainingConfig) -> list[str]:
    """Return where the dense layers lie of a model that has both kinds, one line or none."""
    moe, pp = config.model.num_moe_layers(), config.parallelism.pp
    dense = config.model.n_layers - moe
    if not moe or not dense:
        return []
    line = f"{dense} dense and {moe} MoE layers are spread evenly over the model"
    if pp == 1:
        return [line]
    if dense % pp == 0 and moe % pp == 0:
        return [f"{line}: {dense // pp} and {moe // pp} on each of {pp} pipeline stages"]
    return [
        f"{line}, which pp={pp} stages do not share in whole layers: each counts the mean of both kinds; one with "
        "an MoE layer more needs more memory"
    ]
