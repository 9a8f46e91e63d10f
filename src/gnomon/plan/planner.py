"""`plan`: nouns in, an `Estimate` out."""

from __future__ import annotations

from typing import Literal

import numpy as np

from gnomon.plan.cases import Cases
from gnomon.plan.checks import check_problem
from gnomon.plan.estimate import SECONDS_PER_DAY, Estimate, PipelineEstimate, StageEstimate, StagePasses
from gnomon.plan.evaluate import Evaluation, evaluate
from gnomon.plan.explain import assumptions, sources
from gnomon.plan.memory import activation_tensors
from gnomon.plan.operator import Operator
from gnomon.plan.operator_rows import collective_rows, operator_rows
from gnomon.plan.parameters import count_parameters
from gnomon.plan.schedule import StageTimes, in_flight
from gnomon.plan.stages import STAGES, ZERO_BUBBLE, held_layers, stage_parameters
from gnomon.spec import ClusterSpec, Layout, MemoryBreakdown, ModelSpec, TimeBreakdown, Workload
from gnomon.spec.catalog import load_stack

StageName = Literal["whole model", "first", "middle", "last"]


def plan(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload) -> Estimate:
    """Predict one training step; raise LayoutError or PlanError when it cannot run or cannot be priced."""
    check_problem(model, cluster, layout, workload)
    stack = load_stack(workload.stack)
    cases = Cases.of(model, cluster, layout, workload, stack)
    result = evaluate(cases)
    step_time_s, flops = float(result.step_time_s[0]), float(result.model_flops[0])
    tokens_per_s = workload.tokens_per_step / step_time_s
    peak = cluster.accelerator.peak(workload.precision)
    mfu = None if peak is None else flops / step_time_s / (peak * layout.num_ranks)
    stages = _stages(cases, result, cluster, layout)
    fullest = max(stages, key=lambda stage: stage.memory.total_bytes)
    return Estimate(
        model=model,
        cluster=cluster,
        layout=layout,
        workload=workload,
        num_parameters=count_parameters(model).total,
        model_flops=flops,
        step_time_s=step_time_s,
        tokens_per_s=tokens_per_s,
        tokens_per_s_per_accelerator=tokens_per_s / layout.num_ranks,
        tokens_per_day=tokens_per_s * SECONDS_PER_DAY,
        mfu=mfu,
        hfu=None if mfu is None else mfu * _computed_share(cases, result, layout),
        time=TimeBreakdown(**{term: float(values[0]) for term, values in result.terms.items()}),
        memory=fullest.memory,
        fits=fullest.fits,
        stages=stages,
        pipeline=_pipeline(cases, result, layout),
        activation_tensors={n: float(np.ravel(size)[0]) for n, size in activation_tensors(cases).items() if size.any()},
        operators=(*operator_rows(cases, result), *collective_rows(cases, result, cluster, layout)),
        sources=sources(cluster, layout, workload, stack),
        assumptions=assumptions(model, cluster, layout, workload, stack),
    )


def _computed_share(cases: Cases, result: Evaluation, layout: Layout) -> float:
    """Return FLOPs computed over FLOPs needed: recomputation adds a forward of its layers, or of their attention."""
    if layout.recompute == "none":
        return 1.0
    layer = [o for o in (item.operator for item in result.operators) if o.place == "layer" and o.phase == "forward"]
    again = sum(_flops(o) * _times_again(o, layout) for o in layer)
    # the fused attention's backward recomputes its scores, which counts as needed twice the forward
    whole = sum(_flops(o) for o in layer)
    head = float(2.0 * cases.rank_vocab[0] * cases.model.hidden[0] * cases.tokens[0])
    layers, modules = float(cases.model.num_layers[0]), float(cases.model.mtp_layers[0])
    needed = 3.0 * (whole + head * (1.0 + modules) / (layers + modules))
    return 1.0 + layout.recompute_share * again / needed if needed else 1.0


def _times_again(operator: Operator, layout: Layout) -> float:
    """Return how much of a forward operator is computed again where its layer is recomputed."""
    if layout.recompute == "per_op":
        return 0.0 if operator.term == "attention_s" else 0.5 * float(np.ravel(operator.again)[0])
    if layout.recompute == "full" or (layout.recompute == "products" and operator.term != "attention_s"):
        return float(np.ravel(operator.again)[0])
    if layout.recompute == "products":
        return 0.0
    return float(operator.term == "attention_s")


def _flops(operator: Operator) -> float:
    return float(np.ravel(operator.calls * operator.flops)[0])


def _stages(cases: Cases, result: Evaluation, cluster: ClusterSpec, layout: Layout) -> tuple[StageEstimate, ...]:
    """Return the kinds of stage that the pipeline has."""
    names: dict[str, tuple[StageName, int]] = {
        "first": ("first", 0),
        "middle": ("middle", 1),
        "last": ("last", layout.pp - 1),
    }
    if layout.pp == 1:
        names = {"first": ("whole model", 0)}
    elif layout.pp == 2:
        del names["middle"]
    return tuple(_stage(cases, result, cluster, kind, name, rank) for kind, (name, rank) in names.items())


def _stage(
    cases: Cases, result: Evaluation, cluster: ClusterSpec, kind: str, name: StageName, rank: int
) -> StageEstimate:
    assert kind in STAGES
    terms, split = result.memory[kind], cases.split
    total = float(np.ravel(result.stage_bytes[kind])[0])
    sizes = {
        f"{term}_bytes": float(np.ravel(getattr(terms, term))[0])
        for term in ("weights", "gradients", "optimizer", "activations", "communication")
    }
    memory = MemoryBreakdown(**sizes, framework_bytes=max(total - sum(sizes.values()), 0.0))
    alive = in_flight(split.schedule, split.pp, split.vpp, cases.accumulation, rank)
    capacity = cluster.accelerator.memory_bytes
    return StageEstimate(
        name=name,
        num_layers=float(np.ravel(held_layers(cases, kind))[0]),
        num_parameters=float(np.ravel(np.add(*stage_parameters(cases, kind)))[0]),
        micro_batches_in_flight=float(np.ravel(alive)[0]),
        memory=memory,
        fits=None if capacity is None else memory.total_bytes <= capacity,
    )


def _pipeline(cases: Cases, result: Evaluation, layout: Layout) -> PipelineEstimate | None:
    if layout.pp == 1:
        return None
    total, bubble = float(result.pipeline.total_s[0]), float(result.terms["bubble_s"][0])
    return PipelineEstimate(
        schedule=layout.schedule if layout.vpp == 1 else f"interleaved {layout.schedule}",
        num_micro_batches=int(cases.accumulation[0]),
        total_s=total,
        ranks_wait=not (cases.storage.post_validates[0] > 0 and cases.split.schedule[0] in ZERO_BUBBLE),
        bubble_s=bubble,
        bubble_fraction=bubble / total,
        send_s=float(result.pipeline.send_s[0]),
        passes={stage: _passes(times) for stage, times in result.passes.items()},
        transfer_s=float(np.ravel(result.transfer_s)[0]),
    )


def _passes(times: StageTimes) -> StagePasses:
    return StagePasses(
        forward_s=float(np.ravel(times.forward)[0]),
        backward_input_s=float(np.ravel(times.backward_input)[0]),
        backward_weight_s=float(np.ravel(times.backward_weight)[0]),
    )
