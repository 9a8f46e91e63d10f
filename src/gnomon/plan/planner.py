"""`plan`: nouns in, an `Estimate` out."""

from __future__ import annotations

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.estimate import Estimate, OperatorEstimate
from gnomon.plan.evaluate import Evaluation, PricedOperator, evaluate
from gnomon.plan.operators import Cases
from gnomon.plan.parameters import count_parameters
from gnomon.spec import ClusterSpec, Layout, MemoryBreakdown, ModelSpec, TimeBreakdown, Workload


def plan(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload) -> Estimate:
    """Predict one training step; raise LayoutError or PlanError when it cannot run or cannot be priced."""
    check_model(model)
    check_layout(layout, cluster)
    cases = Cases.build(
        model,
        count_parameters(model).total,
        seq_len=workload.seq_len,
        micro_batch=workload.micro_batch,
        accumulation=workload.accumulation(layout.dp),
        dp=layout.dp,
        precision=workload.precision,
        causal=workload.attention_mask == "causal",
        clipping=workload.gradient_clipping,
        fused_rmsnorm=cluster.accelerator.kind != "cpu",
    )
    check_sequence(model, workload)
    check_window(model, workload)
    return _estimate(evaluate(cases, cluster), model, cluster, layout, workload)


def check_model(model: ModelSpec) -> None:
    """Raise PlanError for what the time model does not cover yet."""
    if model.moe is not None or model.mla is not None:
        what = "mixture-of-experts layers" if model.moe is not None else "latent attention"
        raise PlanError(
            f"Model '{model.name}' has {what}; step time is predicted for dense decoders only. "
            "Its parameters can be counted: gnomon.plan.parameters.count_parameters."
        )


def check_sequence(model: ModelSpec, workload: Workload) -> None:
    """Raise PlanError when learned positions do not reach as far as the sequence."""
    if model.position == "learned" and workload.seq_len > model.max_seq_len:
        raise PlanError(
            f"seq_len={workload.seq_len} exceeds the {model.max_seq_len} learned positions of '{model.name}'. "
            f"Set seq_len <= {model.max_seq_len} or the model's max_seq_len higher."
        )


def check_window(model: ModelSpec, workload: Workload) -> None:
    """Raise PlanError when a sliding window is shorter than the sequence, which the attention time does not cover."""
    if model.num_sliding_window_layers and model.sliding_window and workload.seq_len > model.sliding_window:
        raise PlanError(
            f"Model '{model.name}' has sliding-window layers of {model.sliding_window} tokens and "
            f"seq_len={workload.seq_len}; only full attention is priced. Set seq_len <= {model.sliding_window}."
        )


def check_degrees(layout: Layout) -> None:
    """Raise LayoutError for degrees that the planner does not price."""
    for degree in ("tp", "pp", "cp", "ep", "zero_stage"):
        value = getattr(layout, degree)
        neutral = 0 if degree == "zero_stage" else 1
        if value != neutral:
            raise LayoutError(
                f"layout.{degree}={value} is not priced yet: single-device and data-parallel layouts are. "
                f"Set {degree}={neutral} and use dp."
            )


def check_layout(layout: Layout, cluster: ClusterSpec) -> None:
    """Raise LayoutError for degrees that the planner does not price or that the cluster does not have."""
    check_degrees(layout)
    if layout.num_ranks > cluster.num_accelerators:
        raise LayoutError(
            f"The layout needs {layout.num_ranks} ranks but '{cluster.name}' has {cluster.num_accelerators} "
            f"accelerator(s). Set dp <= {cluster.num_accelerators} or more num_nodes."
        )


def _estimate(
    result: Evaluation, model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload
) -> Estimate:
    step_time_s = float(result.step_time_s[0])
    peak = cluster.accelerator.peak_flops.get(workload.precision)
    flops = float(result.model_flops[0])
    tensors = result.memory
    total_memory = float(result.peak_memory_bytes[0])
    capacity = cluster.accelerator.memory_bytes
    return Estimate(
        model=model,
        cluster=cluster,
        layout=layout,
        workload=workload,
        num_parameters=count_parameters(model).total,
        model_flops=flops,
        step_time_s=step_time_s,
        tokens_per_s=workload.tokens_per_step / step_time_s,
        mfu=None if peak is None else flops / step_time_s / (peak * layout.num_ranks),
        time=TimeBreakdown(**{term: float(values[0]) for term, values in result.terms.items()}),
        memory=MemoryBreakdown(
            weights_bytes=float(tensors.weights[0]),
            gradients_bytes=float(tensors.gradients[0]),
            optimizer_bytes=float(tensors.optimizer[0]),
            activations_bytes=float(tensors.activations[0]),
            communication_bytes=float(tensors.communication[0]),
            framework_bytes=total_memory - float(tensors.tensors[0]),
        ),
        fits=None if capacity is None else bool(total_memory <= capacity),
        operators=_operator_estimates(result),
        sources=_sources(result, cluster, workload, layout),
        assumptions=_assumptions(model, cluster, layout, workload),
    )


def _operator_estimates(result: Evaluation) -> tuple[OperatorEstimate, ...]:
    rows = [_operator_estimate(item) for item in result.operators if float(item.operator.calls[0]) > 0]
    if result.collective_s[0] > 0:
        rows.append(
            OperatorEstimate(
                name="gradient all-reduce",
                phase="communication",
                term="communication_s",
                calls=1,
                flops=0.0,
                traffic_bytes=float(result.memory.gradients[0]),
                time_s=float(result.collective_s[0]),
                bound="network",
                source=result.collective_source,
            )
        )
    return tuple(rows)


def _operator_estimate(item: PricedOperator) -> OperatorEstimate:
    operator = item.operator
    device_s, launch_s = float(item.device_s[0]), float(item.launch_s[0])
    bound = "launch" if launch_s > device_s else "memory" if bool(item.memory_bound[0]) else "compute"
    return OperatorEstimate(
        name=operator.name,
        phase=operator.phase,
        term=operator.term,
        calls=float(operator.calls[0]),
        flops=float(operator.calls[0] * operator.flops[0]),
        traffic_bytes=float(operator.calls[0] * operator.traffic_bytes[0]),
        time_s=device_s,
        launch_s=launch_s,
        bound=bound,
        source=f"{operator.curve} curve '{item.curve_name}'",
    )


def _sources(result: Evaluation, cluster: ClusterSpec, workload: Workload, layout: Layout) -> dict[str, str]:
    mask = "half of the square, causal" if workload.attention_mask == "causal" else "the full square"
    rates = cluster.source or cluster.accelerator.source or cluster.name
    peak = f"peak {workload.precision} ({cluster.peak_source})"
    return {
        "num_parameters": "counted tensor by tensor from the model's sizes",
        "model_flops": f"3 x forward: 2 m n k for each matrix product, attention over {mask}",
        "step_time_s": f"sum of the operators at achieved rates ({rates}), launches and exposed communication",
        "tokens_per_s": f"{workload.global_batch} x {workload.seq_len} tokens / step time",
        "mfu": f"model FLOPs / step time / ({layout.num_ranks} x {peak})",
        "communication_s": result.collective_source,
        "memory": "weights, gradients, two AdamW moments in fp32, and the tensors that autograd keeps",
    }


def _assumptions(model: ModelSpec, cluster: ClusterSpec, layout: Layout, workload: Workload) -> tuple[str, ...]:
    efficiency = cluster.efficiency
    assert efficiency is not None
    lines = [
        "AdamW with fp32 weights, gradients and moments",
        "no recomputation: every activation is kept",
        "fused attention kernel (scores are never stored)",
    ]
    if workload.precision == "bf16":
        lines.append("bf16 through autocast: matrix products, attention and activations; fp32 residual stream")
    lines.append(
        "launches hide behind the device's work" if efficiency.asynchronous else "each operator waits for its launch"
    )
    if layout.dp > 1:
        lines.append(f"{efficiency.communication_overlap:.0%} of the gradient reduction hides behind backward")
    if not efficiency.framework_bytes:
        lines.append("memory of framework, libraries and allocator is unknown for this hardware and counted as 0")
    if model.num_mtp_layers:
        lines.append("multi-token-prediction modules are not priced")
    return tuple(lines)
