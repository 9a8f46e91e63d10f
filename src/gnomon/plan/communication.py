"""What each way of splitting a model sends, and how much of it the step waits for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.plan.arrays import Array, take
from gnomon.plan.cases import Cases
from gnomon.plan.halves import average
from gnomon.plan.network import all_gather_s, all_reduce_s, all_to_all_s, group, send_s
from gnomon.plan.rates import MeasuredRates
from gnomon.plan.stages import largest_stage, shards, stage_layers, stage_parameters, weight_copies

DDP_FIRST_BUCKET_BYTES = 2**20
DDP_BUCKET_BYTES = 25 * 2**20


@dataclass(frozen=True, kw_only=True)
class LayerTraffic:
    """Seconds of collectives of one average layer and micro-batch, before any overlap; `calls` are launches."""

    tensor_forward: Array
    tensor_backward: Array
    context_forward: Array
    context_backward: Array
    expert_forward: Array
    expert_backward: Array
    calls: Array


def layer_traffic(cases: Cases) -> LayerTraffic:
    """Return the collectives inside one layer that depend on its split and on the micro-batch alone."""
    tensor = average(cases, _tensor_s)
    context = _context_s(cases)
    expert = _expert_s(cases)
    split = cases.split
    has_experts = cases.model.moe_layers > 0
    calls = (
        average(cases, layer_sums) * (split.tp > 1)
        + 8.0 * ((split.ep > 1) & has_experts)
        + 4.0 * ((split.expert_tp > 1) & has_experts)
        + 2.0 * split.cp * (split.cp > 1)
    )
    return LayerTraffic(
        tensor_forward=tensor,
        tensor_backward=tensor * np.where(split.sequence_parallel > 0, 1.5, 1.0),
        context_forward=context,
        context_backward=2.0 * context,
        expert_forward=expert,
        expert_backward=expert,
        calls=calls,
    )


def layer_sums(half: Cases) -> Array:
    """Return the tensor-parallel sums of one layer, forward and backward."""
    return 2.0 * (2.0 + half.crossed)


def repeated_sums(cases: Cases) -> Array:
    """Return the part of a forward's tensor-parallel sums that recomputing the layer repeats: not that of a product
    which is left out."""
    model = cases.model
    dense = np.where(model.parallel_block > 0, 0.0, model.dense_layers / model.num_layers)
    return np.asarray(1.0 - dense * (1.0 - cases.last_product_again) / _forward_sums(cases))


def _forward_sums(cases: Cases) -> Array:
    """Return the row products of an average layer, each of which is summed over the tensor-parallel ranks."""
    model = cases.model
    dense = np.where(model.parallel_block > 0, 0.0, model.dense_layers / model.num_layers)
    shared = np.where(model.shared_ffn > 0, model.moe_layers / model.num_layers, 0.0)
    return np.asarray(1.0 + cases.crossed + dense + shared)


def _tensor_s(cases: Cases) -> Array:
    """Return the seconds of one layer's forward: an all-reduce (or a gathering and a scattering) per row product.

    Megatron-LM (arXiv 1909.08053, 2205.05198). A parallel block sums once, a layer with a second attention three times;
    routed experts move tokens instead.
    """
    split = cases.split
    path = group(cases.network, split.tp, np.ones_like(split.tp))
    size = cases.tokens * cases.model.hidden * cases.storage.compute_bytes
    whole = np.where(split.sequence_parallel > 0, 2.0 * all_gather_s(size, path), all_reduce_s(size, path))
    return whole * _forward_sums(cases)


def _context_s(cases: Cases) -> Array:
    """Return the seconds of one layer's forward: keys and values round a ring, or four all-to-alls (Ulysses)."""
    split, bytes_ = cases.split, cases.tokens * cases.storage.compute_bytes
    keys = bytes_ * (cases.rank_keys + cases.rank_values)
    hop = send_s(keys, cases.network, split.tp, split.cp)
    heads = bytes_ * (cases.rank_queries + cases.rank_attended) + keys
    ulysses = all_to_all_s(heads, cases.network, split.cp, split.tp)
    return np.where(split.ring > 0, (split.cp - 1.0) * hop, ulysses)


def _expert_s(cases: Cases) -> Array:
    """Return the seconds to send the tokens of one layer to their experts and back.

    Each rank sends its own tokens to the ranks with their experts. Where ranks share each expert (`expert_tp`), they
    gather what all of them were sent, and scatter the sums of what they made of it: a token once, however many of its
    experts they have.
    """
    model, split = cases.model, cases.split
    sent, gathered = expert_bytes(cases)
    once = all_to_all_s(sent, cases.network, split.ep, split.expert_tp, np.maximum(model.top_k, 1.0))
    gather = all_gather_s(gathered, group(cases.network, split.expert_tp, np.ones_like(split.expert_tp)))
    return 2.0 * (once + gather) * model.moe_layers / model.num_layers


def expert_bytes(cases: Cases) -> tuple[Array, Array]:
    """Return the bytes that a rank sends to the experts of one layer, and that it then has of those who share them."""
    model, split = cases.model, cases.split
    wide = cases.routed_tokens * model.hidden * cases.storage.compute_bytes
    copies = np.maximum(model.top_k, 1.0)
    met = split.ep * (1.0 - (1.0 - 1.0 / split.ep) ** copies) / copies  # of the experts' tokens, those that differ
    return wide / split.expert_tp * (split.ep > 1), wide * met * (split.expert_tp > 1)


def shard_traffic(cases: Cases) -> tuple[Array, Array]:
    """Return the seconds to gather one layer's weights, and to reduce and scatter its gradients, with ZeRO-3."""
    split, storage = cases.split, cases.storage
    shared, experts = stage_parameters(cases, "middle")
    # with one stage it has the prediction modules too, which count as layers
    layers = np.maximum(stage_layers(cases).middle + (split.pp == 1) * cases.model.mtp_layers, 1.0)
    wide, narrow = shards(cases)
    stride = split.tp
    fully = split.zero_stage == 3
    gather = scatter = np.zeros_like(shared)
    expert_stride = split.ep * split.expert_tp
    for parameters, ranks, apart in ((shared, wide, stride), (experts, narrow, expert_stride)):
        path = group(cases.network, np.where(fully & (parameters > 0), ranks, 1.0), apart)
        per_layer = parameters / layers
        share = _shard_rate(cases, ranks, apart)
        gather = gather + all_gather_s(per_layer * storage.compute_bytes, path) / share
        scatter = scatter + all_gather_s(per_layer * storage.gradient_bytes, path) / share
    return gather, scatter


def _shard_rate(cases: Cases, ranks: Array, stride: Array) -> Array:
    """Return what the gathering and scattering of a group reaches of the network's rate; inside a node all of it."""
    return np.where(ranks * stride > cases.network.span[0], cases.storage.shard_rate, 1.0)


def stage_send_s(cases: Cases) -> Array:
    """Return the seconds to send one micro-batch's activations to the next pipeline stage.

    Each tensor-parallel rank sends its part (Megatron-LM, arXiv 2104.04473, section 4.1); DeepSpeed does likewise.
    """
    split = cases.split
    size = cases.tokens / split.tp * cases.model.hidden * cases.storage.stream_bytes
    return send_s(size, cases.network, split.tp * split.cp * split.dp, split.pp)


def gradient_reduction_s(cases: Cases) -> tuple[Array, Array, Array]:
    """Return (total seconds, seconds of the last bucket, seconds to gather updated weights) of one step.

    ZeRO-2 scatters the gradients of every micro-batch, since it keeps only its part of them, and where the software
    shards the weights between micro-batches it gathers them for each. ZeRO-3 has scattered them
    layer by layer; replicas of its shards still reduce theirs.
    """
    split, storage = cases.split, cases.storage
    plain = np.all((split.zero_stage == 0) & (split.tp * split.pp * split.cp == 1))
    if isinstance(cases.rates, MeasuredRates) and plain:
        return _measured_reduction(cases, cases.rates)
    total = gather = np.zeros_like(split.dp)
    ways, expert_ways = shards(cases)
    replicas = split.dp * split.cp * weight_copies(cases)
    expert_replicas = replicas * split.tp / (split.ep * split.expert_tp)
    shared = largest_stage(cases, lambda stage: stage_parameters(cases, stage)[0])
    experts = largest_stage(cases, lambda stage: stage_parameters(cases, stage)[1])
    for size, ranks, held, stride in (
        (shared, replicas, ways, split.tp),
        (experts, np.where(experts > 0, expert_replicas, 1.0), expert_ways, split.ep * split.expert_tp),
    ):
        fully = split.zero_stage == 3
        ranks = np.where(fully, ranks / held, ranks)
        path = group(cases.network, ranks, np.where(fully, stride * held, stride))
        grads = size * storage.gradient_bytes / np.where(fully, held, 1.0)
        scattered = (split.zero_stage >= 1) & ~fully
        times = np.where(split.zero_stage == 2, cases.accumulation, 1.0)
        share = _shard_rate(cases, ranks, stride)
        apart = all_gather_s(grads, path) / share
        total = total + times * np.where(scattered, apart, all_reduce_s(grads, path))
        weights = all_gather_s(size * storage.weight_bytes, path) / share
        gather = gather + np.where(storage.gathers_each_pass > 0, times, 1.0) * np.where(scattered, weights, 0.0)
    return total, np.zeros_like(total), gather


def _measured_reduction(cases: Cases, rates: MeasuredRates) -> tuple[Array, Array, Array]:
    """Return the reduction in DDP's buckets, each priced by the measured curve where its ranks were measured."""
    total, last = np.zeros_like(cases.split.dp), np.zeros_like(cases.split.dp)
    buckets = np.asarray(gradient_buckets(float(np.max(cases.model.parameters)) * 4.0))
    curve = rates.efficiency.collectives.get("all_reduce")
    for degree in np.unique(cases.split.dp):
        if degree == 1:
            continue
        if curve is not None and curve.ranks == degree:
            times = curve.time_s(buckets)
        else:
            ranks = np.full_like(buckets, degree)
            machine = take(cases.network, np.zeros(1, dtype=np.intp))  # measured cases share one machine
            times = all_reduce_s(buckets, group(machine, ranks, np.ones_like(ranks)))
        here = cases.split.dp == degree
        total = np.where(here, float(np.sum(times)), total)
        last = np.where(here, float(times[-1]), last)
    return total, last, np.zeros_like(total)


def gradient_buckets(gradient_bytes: float) -> list[float]:
    """Return DDP's bucket sizes in the order they are reduced (the first is small so that it starts early)."""
    buckets, left = [], gradient_bytes
    for capacity in (DDP_FIRST_BUCKET_BYTES, *[DDP_BUCKET_BYTES] * int(1 + gradient_bytes // DDP_BUCKET_BYTES)):
        if left <= 0:
            break
        buckets.append(min(left, float(capacity)))
        left -= capacity
    return buckets


def window_s(cases: Cases, computed_s: Array, stalls_s: Array) -> Array:
    """Return the seconds that a collective can hide behind: computation, and the launches that show between it.

    stalls_s: what the operators' launches take longer than the operators; an asynchronous device waits for all of it
        but the share `run_ahead`
    """
    shown = (1.0 - cases.storage.run_ahead) * stalls_s
    return computed_s + np.where(cases.storage.asynchronous > 0, shown, 0.0)


def exposed_s(total_s: Array, last_s: Array, hidden_behind_s: Array, overlap: Array) -> Array:
    """Return the seconds that the step waits for a collective.

    The last bucket is complete only when backward is, so nothing hides it; of the others, the share `overlap`
    hides, at most as long as the computation lasts.
    """
    return total_s - overlap * np.minimum(total_s - last_s, hidden_behind_s)
