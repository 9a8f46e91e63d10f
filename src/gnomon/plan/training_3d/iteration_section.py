"""Where the time of an iteration goes: matrix products, one transformer block, the whole step."""

from __future__ import annotations

from collections.abc import Iterator

from gnomon.errors import PlanError
from gnomon.plan.operator import Operator
from gnomon.plan.price import PricedOperator
from gnomon.plan.stages import STAGES, stage_layers
from gnomon.plan.training_3d.memory_section import stage_names
from gnomon.plan.training_3d.result import Bubble, Component, Final, Gemm, Iteration
from gnomon.plan.training_3d.step import Step

# dlcalc's names of what the engine's operators are, in the order in which a block runs them
BLOCK = {
    "normalisation": "Norms",
    "qkv projection": "QKV Proj",
    "qkv gradient": "QKV Gradient",
    "rotary positions": "RoPE",
    "attention": "SDPA",
    "attention output": "Attn Out Proj",
    "residual": "Residuals",
    "dropout": "Dropout",
    "router": "Router",
    "router softmax": "Router Softmax",
    "expert permutation": "Token Permutation",
    "mlp up": "MLP Up Proj",
    "expert up": "MLP Up Proj (Expert)",
    "gated activation": "Glu Act",
    "activation": "Activation",
    "mlp down": "MLP Down Proj",
    "expert down": "MLP Down Proj (Expert)",
}
GEMMS = {
    "qkv projection": "QKV Projection",
    "attention output": "Attention Combine Projection",
    "mlp up": "MLP Up Projection",
    "mlp down": "MLP Down Projection",
    "router": "Router",
    "expert up": "MLP Up (Expert)",
    "expert down": "MLP Down (Expert)",
    "head": "LM Head",
}
WAITS = {
    "tensor": "TP Collectives (exposed)",
    "context": "CP Ring Exchange (exposed)",
    "expert": "EP All-to-All (exposed)",
    "shard": "ZeRO-3 Collectives (exposed)",
}


def gemm_section(step: Step) -> tuple[Gemm, ...]:
    """Return every matrix product of the forward pass, at peak rates."""
    return tuple(_gemm(step, item.operator) for item in step.evaluation.operators if _is_gemm(item))


def _is_gemm(item: PricedOperator) -> bool:
    operator = item.operator
    return operator.name in GEMMS and operator.phase == "forward" and operator.curve == "matmul"


def _gemm(step: Step, operator: Operator) -> Gemm:
    device, model = step.problem.cluster.accelerator, step.problem.model
    m, n, k, groups = (float(size[0]) for size in operator.point)
    whole = step.cases.model.products.get(operator.name)
    n_whole, k_whole = (int(size[0]) for size in whole) if whole else (model.vocab_size, model.hidden_size)
    element = float(step.cases.storage.compute_bytes[0])
    bandwidth = device.memory_bandwidth_bytes_per_s
    flops = 2.0 * m * n * k
    sizes = {"input": m * k * element, "weight": n * k * element, "output": m * n * element}
    return Gemm(
        name=GEMMS[operator.name],
        weight_shape=(k_whole, n_whole),
        local_shape=(round(k), round(n)),
        rows=m,
        groups=groups,
        flops=flops,
        compute_s=flops / peak_flops_per_s(step),
        **{f"{name}_bytes": size for name, size in sizes.items()},
        **{f"{name}_s": size / bandwidth if bandwidth else None for name, size in sizes.items()},
    )


def peak_flops_per_s(step: Step) -> float:
    """Return the dense peak of one accelerator in the precision of the step; raise PlanError when it is unknown."""
    device, precision = step.problem.cluster.accelerator, step.problem.workload.precision
    peaks: dict[str, float] = {str(dtype): peak for dtype, peak in device.peak_flops.items()}
    if precision not in peaks:
        raise PlanError(
            f"The {precision} peak of '{device.name}' is unknown, so its MFU is too; known: {sorted(peaks) or 'none'}. "
            "Choose another hardware.node_type, or a cluster's file with that peak."
        )
    return peaks[precision]


def stage_compute_s(step: Step) -> tuple[float, float]:
    """Return (forward, backward) seconds that the slowest stage computes for one micro-batch, at achieved rates."""
    forward = sum(item.device_s[0] for item in _of(step, "forward"))
    backward = sum(item.device_s[0] for item in _of(step, "backward"))
    layers = _layers(step)
    extras = _extras(step)
    ends = {
        phase: sum(float(i.device_s[0]) for i in extras if i.operator.phase == phase)
        for phase in ("forward", "backward")
    }
    return layers * float(forward) + ends["forward"], layers * float(backward) + ends["backward"]


def bubble_section(step: Step) -> Bubble:
    """Return the bubble of the schedule, as its formula has it and with the stages as they are."""
    layout, seconds = step.problem.layout, float(step.evaluation.terms["bubble_s"][0])
    return Bubble(
        interleaving_multiplier=1.0 / layout.vpp,
        ideal_fraction=(layout.pp - 1) / (layout.vpp * step.problem.num_micro_batches),
        fraction=seconds / float(step.evaluation.pipeline.busy_s[0]),
        bubble_s=seconds,
    )


def iteration_section(step: Step) -> Iteration:
    """Return the parts of one block and of the iteration; each list adds up to its total."""
    moe_layers = step.problem.config.model.num_moe_layers()
    dense_layers = step.problem.model.num_layers - moe_layers
    kinds = [f"{count} {kind}" for count, kind in ((dense_layers, "dense"), (moe_layers, "MoE")) if count]
    block = tuple(_block(step))
    return Iteration(
        block_layers=("average of " if len(kinds) > 1 else "each of ") + " and ".join(kinds) + " layers",
        block=block,
        block_s=sum(component.seconds for component in block),
        stage=stage_names(step.problem.layout.pp)[_busiest(step)],
        components=tuple(sorted(_components(step), key=lambda component: -component.seconds)),
    )


def final_section(step: Step) -> Final:
    """Return iteration time, tokens per day and MFU."""
    seconds, flops = float(step.evaluation.step_time_s[0]), float(step.evaluation.model_flops[0])
    ideal = flops / (step.problem.layout.num_ranks * peak_flops_per_s(step))
    return Final(
        iteration_time_s=seconds,
        tokens_per_day=step.problem.workload.tokens_per_step / seconds * 86400.0,
        ideal_iteration_time_s=ideal,
        model_flops=flops,
        mfu=ideal / seconds,
    )


def _block(step: Step) -> Iterator[Component]:
    parts: dict[str, dict[str, float]] = {}
    for phase in ("forward", "backward"):
        for item in _of(step, phase):
            name = item.operator.name.partition(" (")[0]
            entry = parts.setdefault(name, {"forward": 0.0, "backward": 0.0})
            entry[phase] += float(item.device_s[0])
    order = list(BLOCK)
    for name, part in sorted(parts.items(), key=lambda p: order.index(p[0]) if p[0] in order else len(order)):
        label = BLOCK.get(name, name.capitalize())
        yield Component(name=label, seconds=sum(part.values()), forward_s=part["forward"], backward_s=part["backward"])
    passes = step.problem.num_micro_batches * _layers(step)
    waits = {WAITS[kind]: float(step.evaluation.exposed[kind][0]) / passes for kind in WAITS}
    waits["Recomputation"] = float(step.evaluation.terms["recompute_s"][0]) / passes
    for label, seconds in waits.items():
        if seconds > 0:
            yield Component(name=label, seconds=seconds)


def _components(step: Step) -> Iterator[Component]:
    terms, exposed = step.evaluation.terms, step.evaluation.exposed
    micro_batches = step.problem.num_micro_batches
    zero = step.problem.layout.zero_stage
    ends = {place: micro_batches * sum(_seconds(i) for i in _extras(step, place)) for place in ("first", "last")}
    seconds = {
        f"DP {'AR' if zero == 0 else 'RS'} (exposed)": float(exposed["gradients"][0]),
        "DP AG (exposed)": float(exposed["weights"][0]),
        "PP Send/Recv (exposed)": float(exposed["pipeline"][0]),
        "Waiting for the Slowest Rank": float(exposed["stragglers"][0]),
        "Pipeline Bubble": float(terms["bubble_s"][0]),
        "LM Head and Loss": ends["last"],
        "Embedding Lookup": ends["first"],
        "Gradient Accumulation": _accumulation_s(step),
        "Optimizer Step": float(terms["optimizer_s"][0]),
        "Launches and Idle": float(terms["idle_s"][0] + terms["data_s"][0]),
    }
    yield Component(name="Transformer Block", seconds=float(step.evaluation.step_time_s[0]) - sum(seconds.values()))
    yield from (Component(name=name, seconds=value) for name, value in seconds.items() if value > 0)


def _accumulation_s(step: Step) -> float:
    once = sum(_seconds(item) for item in step.evaluation.operators if item.operator.place == "accumulation")
    return (step.problem.num_micro_batches - 1) * once


def _busiest(step: Step) -> str:
    return STAGES[int(step.evaluation.busiest[0])]


def _layers(step: Step) -> float:
    return float(getattr(stage_layers(step.cases), _busiest(step))[0])


def _of(step: Step, phase: str) -> Iterator[PricedOperator]:
    yield from (i for i in step.evaluation.operators if i.operator.place == "layer" and i.operator.phase == phase)


def _extras(step: Step, *places: str) -> list[PricedOperator]:
    """Return the operators of embedding and head that the slowest stage has."""
    has = ("first", "last") if step.problem.layout.pp == 1 else (_busiest(step),)
    wanted = [place for place in (places or ("first", "last")) if place in has]
    return [item for item in step.evaluation.operators if item.operator.place in wanted]


def _seconds(item: PricedOperator) -> float:
    return float(item.device_s[0])
