"""Evaluate the step of a problem, with what dlcalc's schema asks for beyond the planner's layouts.

That is gradients cut into a given number of buckets, data parallelism over datacentres, recomputed activation
functions, and interleaved schedules whose micro-batches are no multiple of the pipeline's length.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from gnomon.plan.arrays import Array, array
from gnomon.plan.cases import Cases
from gnomon.plan.communication import exposed_s, gradient_reduction_s
from gnomon.plan.evaluate import Evaluation, evaluate
from gnomon.plan.memory import activation_tensors
from gnomon.plan.network import NONE, Network, padded
from gnomon.plan.schedule import in_flight, supported
from gnomon.plan.stages import STAGES, stage_layers
from gnomon.plan.training_3d.problem import Datacentres, Problem

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Collective:
    """Seconds of a collective of data parallelism.

    `latency_s` and `bandwidth_s` are of one bucket, the others of the step; `one_site_s` is what the step would take
    if all replicas were in one datacentre.
    """

    latency_s: Array
    bandwidth_s: Array
    total_s: Array
    exposed_s: Array
    one_site_s: Array


@dataclass(frozen=True)
class Step:
    """A problem as arrays of one case, and what evaluating it gave; `alive` is micro-batches in flight by stage."""

    problem: Problem
    cases: Cases
    evaluation: Evaluation
    reduction: Collective
    gather: Collective
    alive: dict[str, Array]
    activation_tensors: dict[str, Array]


def evaluate_step(problem: Problem) -> Step:
    """Return the evaluated step; raise PlanError when it cannot be priced."""
    cases = _with_layers_spread(
        Cases.of(problem.model, problem.cluster, problem.layout, problem.workload, problem.stack)
    )
    counts, weight = _micro_batches(cases)
    runnable = replace(cases, accumulation=counts)
    evaluation = evaluate(runnable)
    reduction, gather = _data_parallel(problem, runnable, evaluation)
    exposed = {"gradients": reduction.exposed_s, "weights": gather.exposed_s}
    evaluation = _with_exposed(evaluation, exposed)
    alive = micro_batches_in_flight(runnable, runnable.split.vpp)
    tensors = activation_tensors(runnable)
    if problem.recompute_activations:
        kept = _kept_after_recomputation(runnable, tensors)
        evaluation = _with_recomputation(runnable, evaluation, alive, tensors, kept)
        tensors = kept
    found = _between((evaluation, reduction, gather, alive, tensors), weight)
    return Step(problem, cases, *found)


def _with_layers_spread(cases: Cases) -> Cases:
    """Return the cases with dense layers evenly between those with experts, whatever their share, as dlcalc has it."""
    return replace(cases, model=replace(cases.model, leading_dense=np.zeros(1)))


def _micro_batches(cases: Cases) -> tuple[Array, float]:
    """Return the numbers of micro-batches to evaluate, and how far the asked number lies from the first to the last.

    Interleaving runs multiples of pp: between two of them the step time is taken on the line through both, as the
    bubble's share (pp - 1) / (vpp m) of m micro-batches has it (arXiv 2104.04473).
    """
    split, asked = cases.split, cases.accumulation
    if supported(split.schedule, split.pp, split.vpp, asked).all():
        return asked, 0.0
    group = float(split.pp[0])
    below = np.floor(asked[0] / group) * group
    return array([below, below + group]), float((asked[0] - below) / group)


def _between(item: T, weight: float) -> T:
    """Return a structure of arrays with the point between the first and the last case of each."""
    value: Any = item
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            return value[:1]  # type: ignore[return-value]
        return (1.0 - weight) * value[:1] + weight * value[-1:]  # type: ignore[return-value]
    if isinstance(value, Mapping):
        return {key: _between(entry, weight) for key, entry in value.items()}  # type: ignore[return-value]
    if isinstance(value, list | tuple):
        return type(value)(_between(entry, weight) for entry in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: _between(getattr(value, f.name), weight) for f in fields(value)}
        return replace(value, **changed)  # type: ignore[return-value]
    return item


def _data_parallel(problem: Problem, cases: Cases, evaluation: Evaluation) -> tuple[Collective, Collective]:
    """Return the reduction of gradients and the gathering of weights over buckets and datacentres."""
    crossing = cases
    if problem.datacentres is not None:
        crossing = replace(cases, network=_network(problem.datacentres, problem, cases))
    found = []
    for index, kind in ((0, "gradients"), (2, "weights")):
        bandwidth, latency, last = _parts(crossing, index)
        local_bandwidth, local_latency, _ = _parts(cases, index)
        buckets = problem.num_buckets or 1
        total = bandwidth + buckets * latency
        if problem.num_buckets is not None:
            last = total / buckets  # of gradients the last, of weights the first: nothing runs that could hide it
        found.append(
            Collective(
                latency_s=latency,
                bandwidth_s=bandwidth / buckets,
                total_s=total,
                exposed_s=exposed_s(total, last, evaluation.windows[kind], cases.overlap_data),
                one_site_s=local_bandwidth + buckets * local_latency,
            )
        )
    return found[0], found[1]


def _parts(cases: Cases, index: int) -> tuple[Array, Array, Array]:
    """Return (seconds of the bytes, seconds of the latencies, seconds of the last bucket) of one collective."""
    silent = replace(cases.network, latency_s=tuple(np.zeros_like(x) for x in cases.network.latency_s))
    whole = gradient_reduction_s(cases)
    bandwidth = gradient_reduction_s(replace(cases, network=silent))[index]
    return bandwidth, whole[index] - bandwidth, whole[1] if index == 0 else np.zeros(1)


def _network(datacentres: Datacentres, problem: Problem, cases: Cases) -> Network:
    """Return the network that a data-parallel group sees: node, site, and the links between sites.

    Ranks of one pipeline stage are neighbours; a site has `replicas` of them. The links achieve the same share of
    their rate as the network of the site, and each accelerator has an equal part of them, at most what its own
    network adapter sends; what crosses them has passed the network of a site too.
    """
    layout, inner = problem.layout, cases.network
    stage_ranks = array(datacentres.replicas * layout.cp * layout.tp)
    achieved = inner.bandwidth[-1] / problem.cluster.tiers[-1].bandwidth_bytes_per_s
    share = datacentres.bandwidth_bytes_per_s * achieved / (layout.num_ranks / datacentres.count)
    return Network(
        span=padded([np.minimum(inner.span[0], stage_ranks), stage_ranks, stage_ranks * datacentres.count]),
        bandwidth=padded([inner.bandwidth[0], inner.bandwidth[-1], np.minimum(share, inner.bandwidth[-1])]),
        latency_s=padded([inner.latency_s[0], inner.latency_s[-1], inner.latency_s[-1] + datacentres.latency_s]),
        neighbours=(inner.neighbours[0], *NONE[1:]),
    )


def _with_exposed(evaluation: Evaluation, exposed: Mapping[str, Array]) -> Evaluation:
    more = sum((value - evaluation.exposed[kind] for kind, value in exposed.items()), start=np.zeros(1))
    terms = {**evaluation.terms, "communication_s": evaluation.terms["communication_s"] + more}
    kinds = {**evaluation.exposed, **exposed}
    return replace(evaluation, terms=terms, exposed=kinds, step_time_s=evaluation.step_time_s + more)


def micro_batches_in_flight(cases: Cases, vpp: Array) -> dict[str, Array]:
    """Return how many micro-batches each stage holds at most with `vpp` chunks per rank."""
    split = cases.split
    ranks = (np.zeros_like(split.pp), np.minimum(1.0, split.pp - 1.0), split.pp - 1.0)
    held = (in_flight(split.schedule, split.pp, vpp, cases.accumulation, rank) for rank in ranks)
    return dict(zip(STAGES, held, strict=True))


def _kept_after_recomputation(cases: Cases, tensors: dict[str, Array]) -> dict[str, Array]:
    """Return the tensors that super-selective checkpointing keeps: no output of the first norm or of the activation
    function, no dropout masks."""
    norms = np.maximum(cases.model.norms_per_layer, 1.0)
    dropped = {"product inputs": 1.0 / norms, "activation": np.ones(1), "dropout masks": np.ones(1)}
    return {name: size * (1.0 - dropped.get(name, np.zeros(1))) for name, size in tensors.items()}


def _with_recomputation(
    cases: Cases,
    evaluation: Evaluation,
    alive: dict[str, Array],
    tensors: dict[str, Array],
    kept: dict[str, Array],
) -> Evaluation:
    """Compute the dropped tensors again in every backward pass; what is dropped exists for one layer at a time."""
    norms = np.maximum(cases.model.norms_per_layer, 1.0)
    parts: dict[str, Array | float] = {
        "normalisation": 1.0 / norms,
        **dict.fromkeys(("activation", "gated activation", "gate", "dropout"), 1.0),
    }
    again = np.zeros(1)
    for item in evaluation.operators:
        if item.operator.place == "layer" and item.operator.phase == "forward":
            again = again + item.device_s * parts.get(item.operator.name, 0.0)
    counts = stage_layers(cases)
    layers = np.choose(
        evaluation.busiest, [np.broadcast_to(getattr(counts, s), evaluation.busiest.shape) for s in STAGES]
    )
    work = cases.accumulation * layers * again
    bubble = evaluation.terms["bubble_s"] * work / evaluation.pipeline.busy_s
    terms = dict(evaluation.terms)
    terms["recompute_s"] = terms["recompute_s"] + work
    terms["bubble_s"] = terms["bubble_s"] + bubble
    saved = sum(tensors.values(), start=np.zeros(1)) - sum(kept.values(), start=np.zeros(1))
    memory = {
        stage: replace(
            held,
            activations=np.maximum(held.activations - (alive[stage] * getattr(counts, stage) - 1.0) * saved, 0.0),
        )
        for stage, held in evaluation.memory.items()
    }
    return replace(evaluation, terms=terms, memory=memory, step_time_s=evaluation.step_time_s + work + bubble)
