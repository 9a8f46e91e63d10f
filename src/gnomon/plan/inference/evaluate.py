"""Times of prefill and decode of one replica, for an array of batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gnomon.plan.arrays import Array, array
from gnomon.plan.cases import Cases
from gnomon.plan.inference.communication import layer_communication, stage_send_s
from gnomon.plan.inference.memory import ServingMemory, serving_memory
from gnomon.plan.inference.operators import (
    Bytes,
    ServingOperator,
    decode_operators,
    one_token,
    prefill_operators,
)
from gnomon.plan.inference.price import ROOFLINE_TERMS, Seconds, ServingRates, seconds_at
from gnomon.plan.inference.workload import OPERAND_BYTES, STORED_BYTES, InferenceWorkload
from gnomon.plan.rates import rates_of
from gnomon.spec import ClusterSpec, Layout, ModelSpec, StackSpec, Workload


@dataclass(frozen=True, kw_only=True)
class Pass:
    """Seconds of one pass through all pipeline stages, by term, and of the slowest stage alone.

    `needed_bytes` (weights and cache) and `flops` are those of one rank of every stage together.
    """

    terms: dict[str, Array]
    slowest_stage_s: Array
    needed_bytes: Array
    flops: Array

    @property
    def total_s(self) -> Array:
        """Seconds from the first stage's start to the last one's end."""
        return sum(self.terms.values(), start=np.zeros(1))


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What a replica achieves with each batch. `throughput` is output tokens/s of all replicas together."""

    batch: Array
    prefill: Pass
    decode: Pass
    ttft_s: Array
    tpot_s: Array
    request_s: Array
    throughput: Array
    memory: ServingMemory


def serve(
    model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload, batches: Array
) -> Serving:
    """Return times of requests like `workload` with each of `batches` sequences decoded together on a replica.

    With pp stages the batch is cut into as many parts, which follow each other through the stages.
    """
    cases = serving_cases(model, cluster, layout, workload)
    sizes, rates = _sizes(workload), _rates(cluster, workload)
    direct = cluster.accelerator.kind == "gpu"
    prompts = np.minimum(batches, float(workload.prefill_batch))
    filling = replace(cases, micro_batch=prompts, seq_len=array(workload.prompt_len))
    prefill = _pass(filling, prefill_operators(filling, sizes), rates, direct)
    parts = np.minimum(batches, float(layout.pp))
    decoding = one_token(replace(cases, micro_batch=np.ceil(batches / layout.pp)))
    operators = decode_operators(decoding, sizes, model, layout.tp, workload.mean_context)
    decode = _pass(decoding, operators, rates, direct)
    waiting = np.maximum(parts * decode.slowest_stage_s - decode.total_s, 0.0)
    decode = replace(decode, terms={**decode.terms, "pipeline_s": waiting})
    ttft, tpot = prefill.total_s * np.ones_like(batches), decode.total_s
    steps = float(workload.output_len - 1)
    busy = batches / prompts * prefill.slowest_stage_s + steps * tpot
    return Serving(
        batch=batches,
        prefill=prefill,
        decode=decode,
        ttft_s=ttft,
        tpot_s=tpot,
        request_s=ttft + steps * tpot,
        throughput=layout.dp * batches * workload.output_len / busy,
        memory=serving_memory(model, cases, workload, sizes),
    )


def needed_memory(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload) -> ServingMemory:
    """Return what `serve` says of memory, without its times."""
    return serving_memory(model, serving_cases(model, cluster, layout, workload), workload, _sizes(workload))


def serving_cases(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: InferenceWorkload) -> Cases:
    """Return the engine's arrays for one sequence, with 16-bit (or fp32) weights and activations and fused kernels."""
    stack = StackSpec(
        name="inference",
        storage="pure",
        fused_elementwise=cluster.efficiency is None,  # a measured machine runs the kernels that were measured
        flash_attention=True,
        gradient_bytes=2,
        dispatch_s=0.0,  # a captured graph, or a host that runs ahead
    )
    step = Workload(
        seq_len=workload.prompt_len,
        global_batch=layout.dp,
        micro_batch=1,
        precision=workload.wide_precision,
        expert_imbalance=workload.expert_imbalance,
    )
    cases = Cases.of(model, cluster, layout, step, stack)
    return replace(
        cases,
        model=replace(cases.model, mtp_layers=np.zeros(1)),
        storage=replace(cases.storage, operand_bytes=array(OPERAND_BYTES[workload.compute_precision])),
    )


def _sizes(workload: InferenceWorkload) -> Bytes:
    return Bytes(
        weights=STORED_BYTES[workload.weight_precision],
        operands=OPERAND_BYTES[workload.compute_precision],
        cache=STORED_BYTES[workload.kv_precision],
    )


def _rates(cluster: ClusterSpec, workload: InferenceWorkload) -> ServingRates:
    wide, compute = workload.wide_precision, workload.compute_precision
    others = rates_of(cluster, wide)
    products = others if compute == wide else rates_of(cluster, compute)
    return ServingRates.of(products, others, wide, compute)


def _pass(cases: Cases, operators: list[ServingOperator], rates: ServingRates, direct: bool) -> Pass:
    layers, pp = cases.model.num_layers, cases.split.pp
    first, layer, last = (seconds_at(place, operators, cases, rates) for place in ("first", "layer", "last"))
    communication, calls = layer_communication(cases, direct)
    send = stage_send_s(cases)
    launch = _launch_s(first, cases) + layers * _launch_s(layer, cases) + _launch_s(last, cases)
    terms = {term: first.terms[term] + layers * layer.terms[term] + last.terms[term] for term in ROOFLINE_TERMS}
    terms["communication_s"] = layers * communication + (pp - 1.0) * send
    terms["launch_s"] = launch + layers * calls * rates.kernel_s
    per_layer = layer.device_s + _launch_s(layer, cases) + communication + calls * rates.kernel_s
    end = last.device_s + _launch_s(last, cases)
    whole = sum(terms.values(), start=np.zeros(1))
    slowest = np.where(pp > 1, np.ceil(layers / pp) * per_layer + end + send, whole)
    return Pass(
        terms=terms,
        slowest_stage_s=slowest,
        needed_bytes=first.needed_bytes + layers * layer.needed_bytes + last.needed_bytes,
        flops=first.flops + layers * layer.flops + last.flops,
    )


def _launch_s(seconds: Seconds, cases: Cases) -> Array:
    """Return what kernels wait for each other and for the host: all of it on a device that does not run ahead."""
    late = np.maximum(seconds.host_s - seconds.device_s - seconds.gaps_s, 0.0)
    return seconds.gaps_s + np.where(cases.storage.asynchronous > 0, late, seconds.host_s)
