"""The operators and collectives of an evaluation as rows of an estimate."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.communication import (
    expert_bytes,
    layer_sums,
    layer_traffic,
    repeated_sums,
    shard_traffic,
    stage_send_s,
)
from gnomon.plan.estimate import OperatorEstimate
from gnomon.plan.evaluate import Evaluation, repeated_traffic
from gnomon.plan.halves import average
from gnomon.plan.price import PricedOperator
from gnomon.plan.stages import STAGES, stage_parameters
from gnomon.plan.state_work import state_work
from gnomon.spec import ClusterSpec, Layout


def operator_rows(cases: Cases, result: Evaluation) -> list[OperatorEstimate]:
    """Return every operator over one optimizer step of a rank of the slowest stage."""
    counts = _counts(cases, result)
    rows = [_operator_row(item, counts[item.operator.place]) for item in result.operators]
    return [row for row in rows if row.calls > 0]


def _counts(cases: Cases, result: Evaluation) -> dict[str, float]:
    """Return how often each place happens in one step of the slowest stage."""
    micro_batches = float(cases.accumulation[0])
    found = {place: micro_batches * _one(count) for place, count in result.counts.items()}
    return {**found, "accumulation": micro_batches - 1.0, "step": 1.0}


def _operator_row(item: PricedOperator, count: float) -> OperatorEstimate:
    operator = item.operator
    calls = _one(operator.calls) * count
    device_s, launch_s = _one(item.device_s) * count, _one(item.launch_s) * count
    bound = "launch" if launch_s > device_s else "memory" if bool(item.memory_bound[0]) else "compute"
    return OperatorEstimate(
        name=operator.name,
        phase=operator.phase,
        term=operator.term,
        calls=calls,
        flops=calls * _one(operator.flops),
        traffic_bytes=calls * _one(operator.traffic_bytes),
        time_s=device_s,
        launch_s=launch_s,
        bound=bound,
        source=f"{operator.curve} curve '{item.curve_name}'",
    )


def collective_rows(cases: Cases, result: Evaluation, cluster: ClusterSpec, layout: Layout) -> list[OperatorEstimate]:
    """Return every kind of collective of one step: bytes that a rank passes to it, its time, and what shows of it."""
    return [
        OperatorEstimate(
            name=name,
            phase="communication",
            term="communication_s",
            calls=calls,
            flops=0.0,
            traffic_bytes=size,
            time_s=seconds,
            exposed_s=_one(result.exposed[kind]),
            bound="network",
            tier=_tier(cluster, reach),
            source=_source(cluster, layout, kind),
        )
        for name, kind, calls, size, seconds, reach in _collectives(cases, result, layout)
        if seconds > 0
    ]


def _collectives(
    cases: Cases, result: Evaluation, layout: Layout
) -> Iterator[tuple[str, str, float, float, float, int]]:
    """Yield (name, kind, calls, bytes, seconds, ranks that it spans)."""
    traffic = layer_traffic(cases)
    gather, scatter = shard_traffic(cases)
    state = state_work(cases)
    model, storage = cases.model, cases.storage
    layers = _counts(cases, result)["layer"]
    micro_batches = float(cases.accumulation[0])
    wide = model.hidden * storage.compute_bytes
    sums = _one(average(cases, layer_sums))
    summed = _one(average(cases, lambda half: layer_sums(half) * half.tokens * wide))
    keys = _one(2.0 * cases.tokens * cases.rank_keys * storage.compute_bytes)
    routed = _one(np.add(*expert_bytes(cases)))
    stage = STAGES[int(result.busiest[0])]
    parameters = _one(np.add(*stage_parameters(cases, stage)))
    inner = layout.tp * layout.cp
    again = {kind: _one(share) for kind, share in repeated_traffic(cases, repeated_sums(cases)).items()}
    tensor, context, expert = (
        layers * _one((1.0 + again[kind]) * getattr(traffic, f"{kind}_forward") + getattr(traffic, f"{kind}_backward"))
        for kind in ("tensor", "context", "expert")
    )
    times = layers * (1.0 + again["tensor"] / 2.0)  # half of the sums are the forward's
    yield "tensor-parallel sums", "tensor", sums * times, times * summed, tensor, layout.tp
    times = layers * (3.0 + again["context"])
    yield "context-parallel exchange", "context", times, times * keys, context, inner
    times = layers * (4.0 + 2.0 * again["expert"])
    yield "expert all-to-all", "expert", times, times * routed, expert, layout.ep * layout.expert_tp
    both = layers * _one(2.0 * gather + scatter)
    size = micro_batches * parameters * _one(2.0 * storage.compute_bytes + storage.gradient_bytes)
    yield "gathering and scattering of shards", "shard", 3 * layers, size, both, layout.dp * inner
    times = micro_batches if layout.zero_stage == 2 else 1.0
    size = times * parameters * _one(storage.gradient_bytes)
    yield "gradient reduction", "gradients", times, size, _one(state.reduction_s), layout.dp * inner
    times = times if _one(storage.gathers_each_pass) > 0 else 1.0
    size = times * parameters * _one(storage.weight_bytes)
    yield "gathering of updated weights", "weights", times, size, _one(state.gather_s), layout.dp * inner
    sends = 2.0 * micro_batches * (layout.pp > 1)
    size = _one(cases.stream_tokens * model.hidden * storage.stream_bytes)
    yield "sends between stages", "pipeline", sends, sends * size, sends * _one(stage_send_s(cases)), layout.num_ranks
    yield "waiting for the slowest rank", "stragglers", 1, 0.0, _one(result.exposed["stragglers"]), layout.num_ranks


def _one(value: Array) -> float:
    return float(np.ravel(value)[0])


def _tier(cluster: ClusterSpec, ranks: int) -> str:
    tier = cluster.tier_for(ranks)
    return tier.name if tier else ""


def _source(cluster: ClusterSpec, layout: Layout, kind: str) -> str:
    curve = cluster.efficiency.collectives.get("all_reduce") if cluster.efficiency else None
    if kind == "gradients" and curve is not None and curve.ranks == layout.dp:
        return "measured all-reduce by size"
    return "variation among equal devices" if kind == "stragglers" else "ring, tree or all-to-all"
