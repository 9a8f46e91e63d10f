"""Price every operator of every case and compose the step: the one set of formulas behind plan, fit and search."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.communication import LayerTraffic, exposed_s, gradient_reduction_s, layer_traffic, stage_send_s
from gnomon.plan.flops import step_flops
from gnomon.plan.memory import MemoryTerms, layer_activations_bytes, stage_memory
from gnomon.plan.operator import Operator
from gnomon.plan.operators import training_operators
from gnomon.plan.rates import MeasuredRates, lookup
from gnomon.plan.schedule import PipelineCost, StageTimes, pipeline_cost
from gnomon.plan.stages import stage_layers, updated_parameters
from gnomon.spec import TIME_TERMS

TOKEN_BYTES = 16  # one int64 token and its int64 target
PASSES = ("forward", "input", "weight")
LAYER_KINDS = ("tensor", "context", "expert", "shard", "offload")
STEP_KINDS = ("gradients", "weights", "states", "pipeline")


@dataclass(frozen=True, kw_only=True)
class PricedOperator:
    """An operator with its time per call: on the device, and for the host to launch it."""

    operator: Operator
    device_s: Array
    launch_s: Array
    memory_bound: NDArray[np.bool_]
    curve_name: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """Seconds per micro-batch by pass (forward, input gradient, weight gradient) and by term.

    `host` is what the launches take, `host_backward` those of the backward pass; `exposed` is what the communication
    waits for, by kind of collective.
    """

    seconds: dict[str, dict[str, Array]]
    host: Array
    host_backward: Array
    stalls: Array
    exposed: dict[str, Array] = field(default_factory=dict)

    def of(self, name: str) -> Array:
        """Return the device seconds of one pass."""
        return total(list(self.seconds[name].values()))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Arrays over cases. `terms`, and `exposed` by kind of collective, are of the slowest pipeline stage.

    `busiest` is its place in STAGES. Times of `operators` are per layer and micro-batch, as their `place` says.
    """

    operators: list[PricedOperator]
    terms: dict[str, Array]
    exposed: dict[str, Array]
    step_time_s: Array
    busiest: NDArray[np.intp]
    pipeline: PipelineCost
    memory: dict[str, MemoryTerms]
    memory_overhead: Array
    framework_bytes: Array
    model_flops: Array

    @property
    def stage_bytes(self) -> dict[str, Array]:
        """Peak bytes of a rank on each kind of stage."""
        return {
            stage: terms.tensors * (1.0 + self.memory_overhead) + self.framework_bytes
            for stage, terms in self.memory.items()
        }

    @property
    def peak_memory_bytes(self) -> Array:
        """Peak bytes of the rank that needs the most."""
        return np.maximum.reduce(list(self.stage_bytes.values()))


def evaluate(cases: Cases) -> Evaluation:
    """Return time and memory of all cases."""
    priced = [_price(operator, cases) for operator in training_operators(cases)]
    layer = _with_collectives(cases, _work(priced, "layer"))
    first, last, step = (_work(priced, place) for place in ("first", "last", "step"))
    counts = stage_layers(cases)
    one = cases.split.pp == 1
    stages = {
        "first": _stage(layer, counts.first, [(first, 1.0), (last, one)]),
        "middle": _stage(layer, counts.middle, [(first, one), (last, one)]),
        "last": _stage(layer, counts.last, [(first, one), (last, 1.0)]),
    }
    idle = {name: _idle_s(cases, work) for name, work in stages.items()}
    pipeline = pipeline_cost(
        cases.split.schedule,
        cases.split.pp,
        cases.split.vpp,
        cases.accumulation,
        *(_stage_times(work, idle[name]) for name, work in stages.items()),
        stage_send_s(cases),
    )
    return _compose(cases, priced, stages, idle, step, pipeline)


def total(arrays: list[Array]) -> Array:
    """Return the elementwise sum of arrays, in order, so that an array gives what its scalars give."""
    return sum(arrays[1:], start=arrays[0]) if arrays else np.zeros(1)


def _price(operator: Operator, cases: Cases) -> PricedOperator:
    compute, memory, name = cases.rates.price(operator, cases.precision)
    storage = cases.storage
    dispatch = {
        "forward": storage.dispatch_forward_s,
        "backward": storage.dispatch_backward_s,
        "optimizer": np.zeros(1),
    }[operator.phase]
    return PricedOperator(
        operator=operator,
        device_s=operator.calls * np.maximum(compute, memory),
        launch_s=operator.calls * operator.launches * dispatch,
        memory_bound=memory >= compute,
        curve_name=name,
    )


def _work(priced: list[PricedOperator], place: str) -> Work:
    seconds: dict[str, dict[str, Array]] = {name: {} for name in PASSES}
    host, host_backward, stalls = np.zeros(1), np.zeros(1), np.zeros(1)
    for item in priced:
        operator = item.operator
        if operator.place != place:
            continue
        stalls = stalls + np.maximum(item.launch_s - item.device_s, 0.0)
        name = "forward" if operator.phase == "forward" else "weight" if operator.key == "grad_weight" else "input"
        terms = seconds[name]
        terms[operator.term] = terms.get(operator.term, np.zeros(1)) + item.device_s
        host = host + item.launch_s
        host_backward = host_backward + item.launch_s * (operator.phase == "backward")
    return Work(seconds=seconds, host=host, host_backward=host_backward, stalls=stalls)


def _with_collectives(cases: Cases, layer: Work) -> Work:
    """Add what one layer waits for its collectives, and what it computes again."""
    split, storage = cases.split, cases.storage
    traffic = layer_traffic(cases)
    forward, backward = layer.of("forward"), layer.of("input") + layer.of("weight")
    attention = layer.seconds["forward"].get("attention_s", np.zeros(1))
    again = split.recompute_share * np.where(split.recompute == 2, 1.0, 0.0)
    inner_again = split.recompute_share * np.where(split.recompute == 1, 1.0, 0.0)
    waits = {
        name: _waits(cases, traffic, name, compute, inner)
        for name, compute, inner in (("forward", forward, attention), ("backward", backward, 2.5 * attention))
    }
    # what is computed again needs its sums again, and its experts their tokens
    waits["backward"]["tensor"] = waits["backward"]["tensor"] + again * waits["forward"]["tensor"]
    waits["backward"]["expert"] = waits["backward"]["expert"] + again * traffic.expert_forward
    offload = 2.0 * split.offload_activations * layer_activations_bytes(cases) / cases.host_bandwidth
    waits["backward"]["offload"] = exposed_s(offload, np.zeros(1), forward + backward, np.ones(1))
    seconds = {
        "forward": {**layer.seconds["forward"], "communication_s": total(list(waits["forward"].values()))},
        "input": {
            **layer.seconds["input"],
            "communication_s": total(list(waits["backward"].values())),
            "recompute_s": again * forward + inner_again * attention,
        },
        "weight": layer.seconds["weight"],
    }
    collectives = traffic.calls * (2.0 + again) * storage.collective_dispatch_s
    share = np.where(forward + backward > 0, forward / (forward + backward), 0.0)
    more = 1.0 + again * share
    return Work(
        seconds=seconds,
        host=layer.host * more + collectives,
        host_backward=layer.host_backward * more,
        stalls=layer.stalls * more,
        exposed={kind: waits["forward"].get(kind, np.zeros(1)) + wait for kind, wait in waits["backward"].items()},
    )


def _waits(cases: Cases, traffic: LayerTraffic, name: str, compute: Array, attention: Array) -> dict[str, Array]:
    """Return what one pass of a layer waits for each kind of collective."""
    storage = cases.storage
    tensor, context, expert, shard = (
        getattr(traffic, f"{kind}_{name}") for kind in ("tensor", "context", "expert", "shard")
    )
    return {
        "tensor": (1.0 - storage.overlap_tensor) * tensor,
        "context": exposed_s(context, np.zeros(1), attention, storage.overlap_context),
        "expert": exposed_s(expert, np.zeros(1), compute, storage.overlap_expert),
        "shard": exposed_s(shard, np.zeros(1), compute, storage.overlap_shard),
    }


def _stage(layer: Work, layers: Array, extras: list[tuple[Work, Array | float]]) -> Work:
    """Return the work of one stage: its layers, and embedding or head where it has them."""
    seconds = {name: {term: value * layers for term, value in layer.seconds[name].items()} for name in PASSES}
    host, backward, stalls = (value * layers for value in (layer.host, layer.host_backward, layer.stalls))
    for work, has in extras:
        host, stalls = host + work.host * has, stalls + work.stalls * has
        backward = backward + work.host_backward * has
        for name in PASSES:
            for term, value in work.seconds[name].items():
                seconds[name][term] = seconds[name].get(term, np.zeros(1)) + value * has
    exposed = {kind: wait * layers for kind, wait in layer.exposed.items()}
    return Work(seconds=seconds, host=host, host_backward=backward, stalls=stalls, exposed=exposed)


def _idle_s(cases: Cases, work: Work) -> Array:
    """Return the launch time of one micro-batch that shows: all of it on a synchronous device.

    Else what the host, which also makes the batches, needs longer than the device: over the whole micro-batch where
    it runs ahead, operator by operator where something makes it wait (a read of a random state, a blocking send).
    """
    device = total([work.of(name) for name in PASSES])
    ahead = np.maximum(work.host + _data_s(cases) - device, 0.0)
    waiting = cases.storage.run_ahead * ahead + (1.0 - cases.storage.run_ahead) * np.maximum(work.stalls, ahead)
    return np.where(cases.storage.asynchronous > 0, waiting, work.host)


def _stage_times(work: Work, idle: Array) -> StageTimes:
    forward, backward, weight = (work.of(name) for name in PASSES)
    whole = forward + backward + weight
    stretch = np.where(whole > 0, (whole + idle) / np.where(whole > 0, whole, 1.0), 1.0)
    return StageTimes(forward=forward * stretch, backward_input=backward * stretch, backward_weight=weight * stretch)


def _compose(
    cases: Cases,
    priced: list[PricedOperator],
    stages: dict[str, Work],
    idle: dict[str, Array],
    step: Work,
    pipeline: PipelineCost,
) -> Evaluation:
    storage, micro_batches = cases.storage, cases.accumulation
    busiest = _slowest(stages, idle)
    names = {term for work in stages.values() for name in PASSES for term in work.seconds[name]}
    terms = {term: np.zeros(1) for term in TIME_TERMS}
    for term in names:
        per_stage = {
            stage: total([work.seconds[name].get(term, np.zeros(1)) for name in PASSES])
            for stage, work in stages.items()
        }
        terms[term] = terms[term] + micro_batches * _choose(busiest, per_stage)
    for term, value in _step_terms(step).items():
        terms[term] = terms[term] + value
    terms["idle_s"] = storage.step_overhead_s + _choose(
        busiest, {name: _step_idle_s(cases, work, step) for name, work in stages.items()}
    )
    terms["data_s"] = np.where(storage.asynchronous > 0, 0.0, micro_batches * _data_s(cases))
    terms["bubble_s"] = np.maximum(pipeline.total_s - micro_batches * _slowest_s(stages, idle) - pipeline.send_s, 0.0)
    exposed = {
        **{k: micro_batches * _choose(busiest, {n: w.exposed[k] for n, w in stages.items()}) for k in LAYER_KINDS},
        **_step_exposed(cases, stages, busiest, step),
        "pipeline": pipeline.send_s,
    }
    # what the layers wait for is among their terms
    terms["communication_s"] = total([terms["communication_s"], *(exposed[kind] for kind in STEP_KINDS)])
    return Evaluation(
        operators=priced,
        terms=terms,
        exposed=exposed,
        step_time_s=total(list(terms.values())),
        busiest=busiest,
        pipeline=pipeline,
        memory=stage_memory(cases),
        memory_overhead=storage.memory_overhead,
        framework_bytes=storage.framework_bytes,
        model_flops=step_flops(cases),
    )


def _step_exposed(cases: Cases, stages: dict[str, Work], busiest: NDArray[np.intp], step: Work) -> dict[str, Array]:
    """Return what the step waits for the reduction of gradients, the gathering of weights, and offloaded states."""
    storage, split = cases.storage, cases.split
    reduction, last, gather = gradient_reduction_s(cases)
    backward = _choose(
        busiest, {name: work.of("input") + work.of("weight") + work.host_backward for name, work in stages.items()}
    )
    accumulated = step.seconds["input"].get("elementwise_s", np.zeros(1))  # gradients added up
    backward = backward + (accumulated + step.host_backward) / cases.accumulation
    forward = _choose(busiest, {name: work.of("forward") for name, work in stages.items()})
    states = updated_parameters(cases) * storage.master_bytes
    return {
        "gradients": exposed_s(reduction, last, backward, storage.overlap_data),
        "weights": exposed_s(gather, np.zeros(1), forward, storage.overlap_data),
        "states": 2.0 * split.offload_optimizer * states / cases.host_bandwidth,
    }


def _step_idle_s(cases: Cases, work: Work, step: Work) -> Array:
    """Return the launch time of a whole step that shows (see `_idle_s`); the optimizer's work hides launches too."""
    storage, micro_batches = cases.storage, cases.accumulation
    host = micro_batches * work.host + step.host + _parameters_host_s(cases)
    device = micro_batches * total([work.of(name) for name in PASSES]) + total([step.of(name) for name in PASSES])
    ahead = np.maximum(host + micro_batches * _data_s(cases) - device, 0.0)
    stalling = np.maximum(micro_batches * work.stalls, ahead)
    waiting = storage.run_ahead * ahead + (1.0 - storage.run_ahead) * stalling
    return np.where(storage.asynchronous > 0, waiting, host)


def _slowest_s(stages: dict[str, Work], idle: dict[str, Array]) -> Array:
    return np.maximum.reduce(
        np.broadcast_arrays(*[total([w.of(n) for n in PASSES]) + idle[s] for s, w in stages.items()])
    )


def _slowest(stages: dict[str, Work], idle: dict[str, Array]) -> NDArray[np.intp]:
    seconds = [total([w.of(n) for n in PASSES]) + idle[s] for s, w in stages.items()]
    return np.argmax(np.stack(np.broadcast_arrays(*seconds)), axis=0)


def _choose(index: NDArray[np.intp], values: dict[str, Array]) -> Array:
    return np.choose(index, np.broadcast_arrays(*values.values(), index.astype(np.float64))[:-1])


def _step_terms(step: Work) -> dict[str, Array]:
    terms: dict[str, Array] = {}
    for name in PASSES:
        for term, value in step.seconds[name].items():
            terms[term] = terms.get(term, np.zeros(1)) + value
    return terms


def _parameters_host_s(cases: Cases) -> Array:
    """Return the host's time per step for the parameter tensors: clipping, optimizer, zeroing."""
    return cases.storage.dispatch_optimizer_s * cases.model.parameter_tensors


def _data_s(cases: Cases) -> Array:
    """Return the time to make one micro-batch, where it was measured; other loaders cost the step nothing."""
    if not isinstance(cases.rates, MeasuredRates) or "data" not in cases.rates.efficiency.memory:
        return np.zeros(1)
    size = cases.tokens * TOKEN_BYTES
    curve, _ = lookup(cases.rates.efficiency.memory, "data", cases.precision, "data")
    return size / curve.at(size)
