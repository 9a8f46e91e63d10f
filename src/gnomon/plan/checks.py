"""What cannot run, refused with what was set, what was found and what to set instead."""

from __future__ import annotations

import math

from gnomon.errors import LayoutError, PlanError, nearest_divisors, nearest_numbers
from gnomon.plan.parameters import layer_counts
from gnomon.plan.schedule import supported
from gnomon.plan.schedules import CLOSED_FORMS
from gnomon.plan.stages import END_LAYERS, FOLDED
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.spec.layout import SCHEDULES

MOST_TOKENS = 10**15


def check_problem(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload) -> None:
    """Raise LayoutError or PlanError for a problem that cannot run or cannot be priced."""
    check_sizes(workload)
    check_sequence(model, workload)
    check_imbalance(model, workload.expert_imbalance, workload.capacity_factor)
    check_degrees(model, layout, workload)
    check_schedule(layout, workload)
    check_cluster(layout, cluster)


def check_sizes(workload: Workload) -> None:
    """Raise PlanError for a batch of more tokens than can be counted exactly."""
    if workload.tokens_per_step > MOST_TOKENS:
        raise PlanError(
            f"global_batch={workload.global_batch:g} x seq_len={workload.seq_len:g} are "
            f"{workload.tokens_per_step:.3g} tokens per step; at most {MOST_TOKENS:.3g} can be planned."
        )


def check_sequence(model: ModelSpec, workload: Workload) -> None:
    """Raise PlanError when learned positions do not reach as far as the sequence, or it is not that of the model."""
    _check_encoder_sequence(model, workload)
    if model.diffusion is not None and workload.attention_mask == "causal":
        raise PlanError(f"'{model.name}' attends to all patches of an image. Set attention_mask=full.")
    for name, length in (("seq_len", workload.seq_len), ("encoder_seq_len", workload.encoder_seq_len or 0)):
        if model.position == "learned" and length > model.max_seq_len:
            raise PlanError(
                f"{name}={length} exceeds the {model.max_seq_len} learned positions of '{model.name}'. "
                f"Set {name} <= {model.max_seq_len} or the model's max_seq_len higher."
            )


def _check_encoder_sequence(model: ModelSpec, workload: Workload) -> None:
    if model.encoder is not None and workload.encoder_seq_len is None:
        raise PlanError(
            f"The encoder of '{model.name}' reads sequences whose length is not set. Set encoder_seq_len, such as 512; "
            "seq_len is that of the decoder."
        )
    if model.encoder is None and workload.encoder_seq_len is not None:
        raise PlanError(
            f"encoder_seq_len={workload.encoder_seq_len}, but '{model.name}' has no encoder. Leave encoder_seq_len out."
        )


def check_degrees(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    """Raise LayoutError for degrees that do not divide what they split."""
    _check_heads(model, layout)
    check_splits(model, layout, workload)


def check_splits(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    """Raise LayoutError for degrees that do not divide what they split, attention heads apart."""
    _check_feed_forward(model, layout)
    _check_halves(model, layout)
    _check_layers(model, layout)
    _check_sequence_split(model, layout, workload)


def check_schedule(layout: Layout, workload: Workload) -> None:
    """Raise LayoutError when the batch does not divide or the pipeline schedule cannot run with its micro-batches."""
    micro_batches = workload.accumulation(layout.dp)
    if supported(SCHEDULES.index(layout.schedule), layout.pp, layout.vpp, micro_batches).all():
        return
    raise LayoutError(
        f"schedule='{layout.schedule}' cannot run with pp={layout.pp}, vpp={layout.vpp} and {micro_batches} "
        f"micro-batches: it needs {_needs(layout.schedule)}. {_runnable(layout, workload, micro_batches)}"
    )


def _runnable(layout: Layout, workload: Workload, micro_batches: int) -> str:
    """Return the nearest batches that the schedule can run, and what else can run this one."""
    index, per_pass = SCHEDULES.index(layout.schedule), workload.micro_batch * layout.dp
    window = 2 * layout.pp  # no schedule asks for a multiple of more, nor for more micro-batches
    around = range(max(1, micro_batches - window), micro_batches + window + 1)
    counts = [m for m in around if supported(index, layout.pp, layout.vpp, m).all()]
    ways = []
    if counts:
        batches = [m * per_pass for m in counts]
        ways += [nearest_numbers("global_batch", micro_batches * per_pass, batches), "another micro_batch"]
    if layout.vpp > 1:  # which other schedules do not have
        ways += ["vpp=1"]
    else:
        names = [n for n in SCHEDULES if supported(SCHEDULES.index(n), layout.pp, 1, micro_batches).all()]
        ways += [f"a schedule from {names}"]
    return f"Set {', or '.join(ways)}."


def check_cluster(layout: Layout, cluster: ClusterSpec) -> None:
    """Raise LayoutError for more ranks than accelerators, or than the network connects, and for offloading to a host
    whose bandwidth is unknown."""
    check_room(layout, cluster)
    check_network(layout.num_ranks, cluster)
    offloads = [n for n in ("offload_activations", "offload_optimizer") if getattr(layout, n) > 0]
    if offloads and cluster.accelerator.host_bandwidth_bytes_per_s is None:
        raise LayoutError(
            f"{offloads[0]}={getattr(layout, offloads[0]):g} moves data to the host, but the bandwidth between "
            f"'{cluster.accelerator.name}' and its host is unknown. Set {offloads[0]}=0, or describe the accelerator "
            "with host_bandwidth_bytes_per_s."
        )


def check_room(layout: Layout, cluster: ClusterSpec) -> None:
    """Raise LayoutError for more ranks than accelerators."""
    ranks, available = layout.num_ranks, cluster.num_accelerators
    if ranks > available:
        nodes = math.ceil(ranks / cluster.accelerators_per_node)
        least = layout.tp * layout.pp * layout.cp
        fewer = f"dp <= {available // least}" if available >= least else "smaller tp, pp or cp"
        raise LayoutError(
            f"The layout needs {ranks} ranks (dp x tp x pp x cp = {layout.dp} x {layout.tp} x {layout.pp} x "
            f"{layout.cp}) but '{cluster.name}' has {available} accelerator(s). "
            f"Set {fewer}, or num_nodes={nodes} on the cluster."
        )


def check_network(ranks: int, cluster: ClusterSpec) -> None:
    """Raise LayoutError for more ranks than the network connects."""
    if ranks > 1 and cluster.tier_for(ranks) is None:
        raise LayoutError(
            f"{ranks} ranks need a network that connects {ranks} accelerators; "
            f"'{cluster.name}' has tiers for {[t.span for t in cluster.tiers] or 'none'}. "
            "Add a network tier to the cluster, or choose a smaller layout."
        )


def check_imbalance(model: ModelSpec, imbalance: float, capacity: float | None = None) -> None:
    """Raise PlanError for a load of the busiest expert that no routing gives, or of experts that a model lacks."""
    moe = model.moe
    if moe is None and (imbalance != 1.0 or capacity is not None):
        named = f"expert_imbalance={imbalance:g}" if imbalance != 1.0 else f"capacity_factor={capacity:g}"
        raise PlanError(f"{named} is for experts, but '{model.name}' has none. Leave it out.")
    if moe is not None and imbalance > moe.num_experts / moe.experts_per_token:
        most = moe.num_experts / moe.experts_per_token
        raise PlanError(
            f"expert_imbalance={imbalance:g}, but an expert of '{model.name}' gets at most all tokens: {most:g} times "
            f"the mean ({moe.num_experts} experts, {moe.experts_per_token} per token). Set it to at most {most:g}."
        )


def _check_heads(model: ModelSpec, layout: Layout) -> None:
    ways = layout.tp * (layout.cp if layout.context_parallel == "all_to_all" else 1)
    degree = "tp" if ways == layout.tp else "tp x cp"
    what = degree if degree == "tp" else f"{degree} (context_parallel='all_to_all')"
    # fewer key heads than ranks are copied, as Megatron-LM and vLLM do
    for name in ("num_heads",) if model.mla else ("num_heads", "num_kv_heads"):
        heads = getattr(model, name)
        copied = name == "num_kv_heads" and ways % heads == 0
        if heads % ways and not copied:
            raise LayoutError(
                f"{what}={ways} does not divide {name}={heads} of '{model.name}'. {_near(ways, heads, degree)}"
            )


def _check_feed_forward(model: ModelSpec, layout: Layout) -> None:
    tp = layout.tp
    moe = model.moe
    widths = {"hidden_size": model.hidden_size if layout.sequence_parallel else 0}
    if layer_counts(model)[0]:
        widths["ffn_hidden_size"] = model.ffn_hidden_size
    if moe is not None:
        widths["moe.shared_expert_ffn_size"] = moe.shared_expert_ffn_size
    for name, width in widths.items():
        if width % tp:
            raise LayoutError(f"tp={tp} does not divide {name}={width} of '{model.name}'. {_near(tp, width)}")
    if moe is None:
        if layout.ep > 1 or layout.expert_tp > 1:
            raise LayoutError(
                f"ep={layout.ep} and expert_tp={layout.expert_tp} split experts, but '{model.name}' has none. "
                "Set both to 1."
            )
        return
    if moe.num_experts % layout.ep:
        raise LayoutError(
            f"ep={layout.ep} does not divide the {moe.num_experts} experts of '{model.name}'. "
            f"{_near(layout.ep, moe.num_experts, 'ep')}"
        )
    if moe.expert_ffn_size % layout.expert_tp:
        raise LayoutError(
            f"expert_tp={layout.expert_tp} does not divide moe.expert_ffn_size={moe.expert_ffn_size} of "
            f"'{model.name}'. {_near(layout.expert_tp, moe.expert_ffn_size, 'expert_tp')}"
        )


def _check_halves(model: ModelSpec, layout: Layout) -> None:
    if model.encoder is not None and layout.pp * layout.cp > 1:
        raise LayoutError(
            f"pp={layout.pp} and cp={layout.cp}, but an encoder-decoder ('{model.name}') is planned on one pipeline "
            "stage and with whole sequences. Set pp=1 and cp=1; tp, dp and zero_stage split it."
        )


def _check_layers(model: ModelSpec, layout: Layout) -> None:
    layers, pp, first, last = model.num_layers, layout.pp, layout.first_stage_layers, layout.last_stage_layers
    most = layers + END_LAYERS if layout.vpp > 1 else layers
    if pp * layout.vpp > most:
        raise LayoutError(
            f"pp x vpp = {pp} x {layout.vpp} model chunks need as many layers, and '{model.name}' has {layers}. "
            f"Set pp x vpp <= {most}."
        )
    if first is None and last is None:
        return
    if layout.vpp > 1 or SCHEDULES.index(layout.schedule) in FOLDED:
        raise LayoutError(
            "first_stage_layers and last_stage_layers are for one chunk per rank, but "
            f"vpp={layout.vpp} and schedule='{layout.schedule}' make several. Leave them out."
        )
    inner = pp - (first is not None) - (last is not None)
    left = layers - (first or 0) - (last or 0)
    if pp == 1 or left < inner or (inner == 0 and left) or (inner and left % inner):
        raise LayoutError(
            f"first_stage_layers={first} and last_stage_layers={last} leave {left} of {layers} layers for "
            f"{inner} other pipeline stage(s), which must have the same number each. Leave both out for an even split."
        )


def _check_sequence_split(model: ModelSpec, layout: Layout, workload: Workload) -> None:
    # a causal ring gives each rank one piece from the start and one from the end of the sequence
    ring = layout.context_parallel == "ring" and layout.cp > 1
    pieces = layout.cp * (2 if ring else 1)
    if workload.seq_len % pieces:
        raise LayoutError(
            f"cp={layout.cp} splits seq_len={workload.seq_len} into {pieces} equal pieces, which does not divide. "
            f"Set seq_len to a multiple of {pieces}, such as {max(1, round(workload.seq_len / pieces)) * pieces}."
        )
    if layout.tp == 1 or not layout.sequence_parallel:
        return
    for name, length in (("seq_len", workload.seq_len), ("encoder_seq_len", workload.encoder_seq_len or 0)):
        if (length // layout.cp) % layout.tp:
            raise LayoutError(
                f"sequence_parallel splits the {length // layout.cp} tokens of a sequence that one rank has over "
                f"tp={layout.tp}, which does not divide. Set {name} to a multiple of {layout.cp * layout.tp}, "
                "or sequence_parallel=false."
            )


def _needs(schedule: str) -> str:
    form = CLOSED_FORMS.get(schedule)
    return form.needs if form else "a form that gnomon does not have"


def _near(value: int, whole: int, name: str = "tp") -> str:
    """Return the divisors of `whole` on both sides of `value`."""
    return f"The nearest values that divide: {nearest_divisors(name, value, whole)}."
