"""`plan_inference`: nouns in, an `InferenceEstimate` out."""

from __future__ import annotations

import numpy as np

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.arrays import Array
from gnomon.plan.checks import check_degrees, check_imbalance, check_network, check_room
from gnomon.plan.explain import achieved_rates
from gnomon.plan.inference.cache import cached_tokens, kv_bytes_per_token, kv_cache_bytes
from gnomon.plan.inference.estimate import (
    INFERENCE_TIME_TERMS,
    InferenceEstimate,
    InferenceMemory,
    InferenceTime,
    ServingPoint,
)
from gnomon.plan.inference.evaluate import Pass, Serving, serve, serving_cases
from gnomon.plan.inference.experts import expected_distinct_experts
from gnomon.plan.inference.memory import rank_weights_bytes
from gnomon.plan.inference.operators import Bytes
from gnomon.plan.inference.workload import STORED_BYTES, InferenceWorkload
from gnomon.plan.parameters import count_parameters
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload

SPLITS = ("dp", "tp", "pp", "ep", "expert_tp", "sequence_parallel")
MOST_BATCHES = 4096
CURVE_POINTS_WITHOUT_LIMIT = 1024


def plan_inference(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload
) -> InferenceEstimate:
    """Predict latency, throughput and memory of serving `model`; raise LayoutError or PlanError when it cannot run."""
    layout = serving_layout(model, layout)
    check_serving(model, cluster, layout, workload)
    found = serve(model, cluster, layout, workload, np.asarray([float(workload.batch)]))
    capacity = usable_bytes(cluster, workload)
    limit = None if capacity is None else found.memory.max_batch(capacity)
    stored, cache = STORED_BYTES[workload.weight_precision], STORED_BYTES[workload.kv_precision]
    memory = InferenceMemory(
        weights_bytes=found.memory.weights,
        kv_cache_bytes=workload.batch * found.memory.cache_per_sequence,
        activations_bytes=float(found.memory.activations(np.asarray([workload.batch]))[0]),
        framework_bytes=found.memory.framework,
    )
    throughput = float(found.throughput[0])
    return InferenceEstimate(
        model=model,
        cluster=cluster,
        layout=layout,
        workload=workload,
        num_parameters=count_parameters(model).total,
        weights_bytes=model_weights_bytes(model, cluster, workload, stored),
        kv_bytes_per_token=kv_bytes_per_token(model, cache),
        kv_bytes_per_sequence=float(kv_cache_bytes(model, workload.total_len, cache)),
        distinct_experts=_distinct_experts(model, layout, workload),
        ttft_s=float(found.ttft_s[0]),
        tpot_s=float(found.tpot_s[0]),
        request_s=float(found.request_s[0]),
        tokens_per_s=throughput,
        tokens_per_s_per_accelerator=throughput / layout.num_ranks,
        prefill=_time(found.prefill),
        decode=_time(found.decode),
        prefill_mfu=_prefill_mfu(cluster, layout, found, workload),
        decode_mbu=_decode_mbu(cluster, layout, found, workload),
        memory=memory,
        fits=None if limit is None else workload.batch <= limit,
        max_batch=limit,
        curve=_curve(model, cluster, layout, workload, limit),
        sources=_sources(model, cluster, workload),
        assumptions=_assumptions(model, cluster, layout, workload),
    )


def serving_layout(model: ModelSpec, layout: Layout) -> Layout:
    """Return the layout as it is served; raise LayoutError for what only training has.

    Norms are not split over tp. Experts are split like the rest of the model where the layout says nothing of them.
    """
    neutral = Layout()
    for name in layout.model_fields_set - set(SPLITS):
        if getattr(layout, name) != getattr(neutral, name):
            raise LayoutError(
                f"layout.{name}={getattr(layout, name)} belongs to training; inference is priced for "
                f"{', '.join(SPLITS[:-1])}. Leave {name} out."
            )
    if "sequence_parallel" in layout.model_fields_set and layout.sequence_parallel:
        raise LayoutError("layout.sequence_parallel=true is not priced for inference. Leave it out.")
    changes: dict[str, object] = {"sequence_parallel": False}
    if model.moe is not None and not {"ep", "expert_tp"} & layout.model_fields_set:
        changes["expert_tp"] = layout.tp
    return Layout.from_mapping({**layout.to_mapping(), **changes}, where="layout")


def check_serving(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload) -> None:
    """Raise LayoutError or PlanError for what cannot run, PlanError for what is no decoder."""
    if model.encoder is not None or model.diffusion is not None:
        kind = "an encoder-decoder" if model.encoder else "a diffusion transformer"
        raise PlanError(
            f"'{model.name}' is {kind}, whose serving is not estimated; its training is. Choose a decoder-only model."
        )
    if model.position == "learned" and workload.total_len > model.max_seq_len:
        raise PlanError(
            f"prompt_len={workload.prompt_len} and output_len={workload.output_len} exceed the {model.max_seq_len} "
            f"learned positions of '{model.name}'. Set both together to at most {model.max_seq_len}."
        )
    check_degrees(model, layout, Workload(seq_len=workload.total_len, global_batch=layout.dp, micro_batch=1))
    check_imbalance(model, workload.expert_imbalance)
    check_room(layout, cluster)
    check_network(layout.tp * layout.pp * max(1, layout.ep * layout.expert_tp // layout.tp), cluster)  # of one replica


def usable_bytes(cluster: ClusterSpec, workload: InferenceWorkload) -> float | None:
    """Return the memory of a device that serving may use, or None when it is unknown."""
    capacity = cluster.accelerator.memory_bytes
    return None if capacity is None else capacity * workload.memory_fraction


def model_weights_bytes(
    model: ModelSpec, cluster: ClusterSpec, workload: InferenceWorkload, element_bytes: float
) -> float:
    """Return the bytes of one copy of the model: matrices of the layers as stored, the rest in 16 bits or fp32."""
    cases = serving_cases(model, cluster, Layout(sequence_parallel=False), workload)
    return float(rank_weights_bytes(cases, Bytes(weights=element_bytes, operands=2.0, cache=2.0))[0])


def _curve(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload, limit: int | None
) -> tuple[ServingPoint, ...]:
    batches = curve_batches(limit)
    if not batches.size:
        return ()
    found = serve(model, cluster, layout, workload, batches)
    memory = found.memory.total(batches)
    return tuple(
        ServingPoint(
            batch=int(batches[i]),
            ttft_s=float(found.ttft_s[i]),
            tpot_s=float(found.tpot_s[i]),
            request_s=float(found.request_s[i]),
            tokens_per_s=float(found.throughput[i]),
            memory_bytes=float(memory[i]),
            fits=None if limit is None else int(batches[i]) <= limit,
        )
        for i in range(batches.size)
    )


def curve_batches(limit: int | None) -> Array:
    """Return 1, 2, 4, ... up to the largest batch that fits, which ends the curve."""
    most = CURVE_POINTS_WITHOUT_LIMIT if limit is None else limit
    batches = [2**i for i in range(most.bit_length())]
    return np.asarray(sorted({*batches, most} - {0}), dtype=np.float64)


def every_batch(limit: int) -> Array:
    """Return all batches that fit; beyond the first 4,096, as many at equal ratios."""
    if limit <= MOST_BATCHES:
        return np.arange(1.0, limit + 1.0)
    return np.unique(np.round(np.geomspace(1.0, limit, MOST_BATCHES)))


def _time(found: Pass) -> InferenceTime:
    return InferenceTime(**{term: float(found.terms[term][0]) for term in INFERENCE_TIME_TERMS if term in found.terms})


def _distinct_experts(model: ModelSpec, layout: Layout, workload: InferenceWorkload) -> float | None:
    if model.moe is None:
        return None
    tokens = np.ceil(workload.batch / layout.pp) * layout.ep * layout.expert_tp / layout.tp
    return float(expected_distinct_experts(model.moe.num_experts, model.moe.experts_per_token, tokens))


def _prefill_mfu(cluster: ClusterSpec, layout: Layout, found: Serving, workload: InferenceWorkload) -> float | None:
    peak = cluster.accelerator.peak_flops.get(workload.compute_precision)
    return None if peak is None else float(found.prefill.flops[0] / found.ttft_s[0]) / (peak * layout.pp)


def _decode_mbu(cluster: ClusterSpec, layout: Layout, found: Serving, workload: InferenceWorkload) -> float | None:
    bandwidth = cluster.accelerator.memory_bandwidth_bytes_per_s
    if bandwidth is None:
        return None
    # each part of the batch reads the weights of every stage once
    parts = min(workload.batch, layout.pp)
    return float(found.decode.needed_bytes[0] / found.tpot_s[0]) * parts / (bandwidth * layout.pp)


def _sources(model: ModelSpec, cluster: ClusterSpec, workload: InferenceWorkload) -> dict[str, str]:
    return {
        "kv_bytes_per_token": "layers x cached elements x bytes",
        "ttft_s": f"forward operators over {workload.prompt_len} tokens at achieved rates ({achieved_rates(cluster)})",
        "tpot_s": f"forward operators over one token per sequence, {workload.mean_context:g} tokens in the cache",
        "memory": f"sequences of {workload.total_len} tokens; {workload.memory_fraction:.0%} of the device may be used",
    }


def _assumptions(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload
) -> tuple[str, ...]:
    lines = ["requests of one length; no queueing; prefill and decode take turns (continuous batching)"]
    if workload.prefill_batch > workload.batch:
        lines.append(f"prefill_batch={workload.prefill_batch} is more than the batch: {workload.batch} are prefilled")
    if workload.total_len > model.max_seq_len:
        lines.append(f"requests are longer than the {model.max_seq_len} tokens that the model is made for")
    if cluster.efficiency is None:
        lines.append("kernels of a captured graph: the host launches nothing by itself")
    if workload.weight_precision != workload.compute_precision:
        lines.append(f"{workload.weight_precision} weights are widened to {workload.compute_precision} in registers")
    if model.moe is not None:
        lines.append("tokens choose experts independently and evenly")
        if layout.expert_tp == layout.tp > 1:
            lines.append(f"every expert is split over {layout.expert_tp} tensor-parallel ranks")
    if model.sliding_window and model.num_sliding_window_layers:
        windowed = f"{model.num_sliding_window_layers} of {model.num_layers} layers"
        kept = float(cached_tokens(model, workload.total_len))
        lines.append(f"{windowed} keep {model.sliding_window} tokens at most: {kept:g} per layer on average")
    if model.num_mtp_layers:
        lines.append("multi-token-prediction modules are not used (no speculative decoding)")
    if cluster.accelerator.memory_bytes is None:
        lines.append(f"the memory of '{cluster.accelerator.name}' is unknown: whether it fits is too")
    return tuple(lines)
