"""Price every operator of every case: the one set of formulas behind `plan`, sizing and search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnomon.errors import PlanError
from gnomon.plan.communication import all_reduce_s, exposed_s, gradient_buckets
from gnomon.plan.flops import model_flops_per_step
from gnomon.plan.memory import MemoryTerms, training_memory
from gnomon.plan.operators import Cases, Operator, training_operators
from gnomon.plan.rates import lookup, operator_time_s
from gnomon.plan.traffic import FP32_BYTES
from gnomon.spec import TIME_TERMS, ClusterSpec, Efficiency, ModelSpec

Array = NDArray[np.float64]
TOKEN_BYTES = 16  # one int64 token and its int64 target


@dataclass(frozen=True, kw_only=True)
class PricedOperator:
    """An operator with its time per step: on the device, and for the host to launch it."""

    operator: Operator
    device_s: Array
    launch_s: Array
    memory_bound: NDArray[np.bool_]
    curve_name: str


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Arrays over cases."""

    operators: list[PricedOperator]
    terms: dict[str, Array]
    collective_s: Array
    collective_source: str
    memory: MemoryTerms
    peak_memory_bytes: Array
    model_flops: Array

    @property
    def step_time_s(self) -> Array:
        """Seconds per optimizer step."""
        return total(list(self.terms.values()))


def evaluate(cases: Cases, cluster: ClusterSpec) -> Evaluation:
    """Return time and memory of all cases; raise PlanError when the cluster has no efficiency curves."""
    efficiency = cluster.efficiency
    if efficiency is None:
        raise PlanError(
            f"The achieved rates of '{cluster.name}' are unknown. "
            "Measure it with gnomon calibrate, or choose a catalog cluster that has them."
        )
    priced = [_price(operator, efficiency, cases.precision) for operator in training_operators(cases)]
    terms = {term: np.zeros_like(cases.tokens) for term in TIME_TERMS}
    for item in priced:
        terms[item.operator.term] = terms[item.operator.term] + item.device_s
    backward = total([p.device_s + p.launch_s for p in priced if p.operator.phase == "backward"])
    collective, exposed, source = _gradient_reduction(cases, cluster, backward / cases.accumulation)
    terms["communication_s"] = exposed
    data_s = _data_s(cases, efficiency)
    terms["data_s"] = np.zeros_like(data_s) if efficiency.asynchronous else data_s
    terms["idle_s"] = _idle_s(priced, efficiency, cases, data_s)
    memory = training_memory(cases)
    causal_flops = model_flops_per_step(
        cases.model, cases.tokens * cases.accumulation * cases.dp, cases.seq_len, cases.causal
    )
    return Evaluation(
        operators=priced,
        terms=terms,
        collective_s=collective,
        collective_source=source,
        memory=memory,
        peak_memory_bytes=memory.tensors * (1.0 + efficiency.allocator_overhead) + efficiency.framework_bytes,
        model_flops=causal_flops,
    )


def total(arrays: list[Array]) -> Array:
    """Return the elementwise sum of arrays of one shape, in order, so that an array gives what its scalars give."""
    return sum(arrays[1:], start=arrays[0])


def _price(operator: Operator, efficiency: Efficiency, precision: str) -> PricedOperator:
    compute, memory, name = operator_time_s(operator, efficiency, precision)
    device = operator.calls * np.maximum(compute, memory)
    dispatch = {
        "forward": efficiency.dispatch_forward_s,
        "backward": efficiency.dispatch_backward_s,
        "optimizer": 0.0,
    }[operator.phase]
    return PricedOperator(
        operator=operator,
        device_s=device,
        launch_s=operator.calls * operator.launches * dispatch,
        memory_bound=memory >= compute,
        curve_name=name,
    )


def _idle_s(priced: list[PricedOperator], efficiency: Efficiency, cases: Cases, data_s: Array) -> Array:
    """Return the launch time that shows: all of it on a synchronous device.

    Else what the host, which also makes the batches, needs longer than the device.
    """
    host = total([item.launch_s for item in priced])
    host = host + efficiency.dispatch_optimizer_s * num_parameter_tensors(cases.model)
    if not efficiency.asynchronous:
        return host
    device = total([item.device_s for item in priced])
    return np.maximum(host + data_s - device, 0.0)


def num_parameter_tensors(model: ModelSpec) -> int:
    """Return the number of separate parameter tensors of a dense decoder."""
    norm = 2 if model.norm == "layernorm" and model.norm_bias else 1
    biases = int(model.attention_bias) + int(model.attention_output_bias) + 2 * int(model.mlp_bias)
    layer = 4 + biases + 2 * norm + (2 * norm if model.qk_norm else 0)
    return model.num_layers * layer + norm + 1 + int(model.position == "learned") + int(not model.tied_embeddings)


def _data_s(cases: Cases, efficiency: Efficiency) -> Array:
    """Return the time to make the batches, where it was measured; loaders in other processes cost the step nothing."""
    if "data" not in efficiency.memory:
        return np.zeros_like(cases.tokens)
    size = cases.tokens * TOKEN_BYTES
    curve, _ = lookup(efficiency.memory, "data", cases.precision, "data")
    return cases.accumulation * size / curve.at(size)


def _gradient_reduction(cases: Cases, cluster: ClusterSpec, backward_s: Array) -> tuple[Array, Array, str]:
    """Return (total seconds, exposed seconds, source) of the data-parallel all-reduce for each case."""
    collective, exposed = np.zeros_like(cases.tokens), np.zeros_like(cases.tokens)
    source = "one rank: nothing to reduce"
    overlap = cluster.efficiency.communication_overlap if cluster.efficiency else 0.0
    buckets = gradient_buckets(float(cases.num_parameters * FP32_BYTES))
    for degree in np.unique(cases.dp):
        if degree == 1:
            continue
        here = cases.dp == degree
        times, source = all_reduce_s(cluster, buckets, int(degree))
        collective[here] = float(np.sum(times))
        exposed[here] = exposed_s([float(t) for t in times], backward_s[here], overlap)
    return collective, exposed, source
