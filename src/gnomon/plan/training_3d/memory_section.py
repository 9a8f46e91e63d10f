"""Memory of the rank that needs the most."""

from __future__ import annotations

import numpy as np

from gnomon.plan.memory import layer_input_bytes
from gnomon.plan.stages import STAGES, stage_layers
from gnomon.plan.training_3d.result import Activations, Memory, State
from gnomon.plan.training_3d.step import Step, micro_batches_in_flight

MOMENTS_BYTES = 8.0  # two fp32 moments of AdamW


def stage_names(pp: int) -> dict[str, str]:
    """Return {stage of the engine: its name} of the stages that a pipeline of `pp` ranks has."""
    if pp == 1:
        return {"first": "whole model"}
    return {stage: stage for stage in STAGES if stage != "middle" or pp > 2}


def memory_section(step: Step) -> Memory:
    """Return states, activations, the total of each stage and whether it fits."""
    names = stage_names(step.problem.layout.pp)
    totals = {stage: float(size[0]) for stage, size in step.evaluation.stage_bytes.items() if stage in names}
    stage = max(totals, key=lambda name: totals[name])
    terms = step.evaluation.memory[stage]
    states = _states(step, stage)
    capacity = step.problem.cluster.accelerator.memory_bytes
    return Memory(
        stage=names[stage],
        states=states,
        states_bytes=sum(state.bytes for state in states),
        activations=_activations(step, stage),
        buffers_bytes=float(terms.communication[0]),
        framework_bytes=totals[stage] - float(terms.tensors[0]),
        total_bytes=totals[stage],
        stages={names[key]: size for key, size in totals.items()},
        capacity_bytes=capacity,
        fits=None if capacity is None else totals[stage] <= capacity,
    )


def _states(step: Step, stage: str) -> tuple[State, ...]:
    terms, storage = step.evaluation.memory[stage], step.cases.storage
    per_element = float(storage.master_bytes[0])
    master = max(per_element - MOMENTS_BYTES, 0.0)
    moment = (per_element - master) / 2.0
    updated = float(terms.optimizer[0]) / per_element
    weights, gradients = float(terms.weights[0]), float(terms.gradients[0])
    rows = [
        State(name="params", elements=weights / float(storage.weight_bytes[0]), bytes=weights),
        State(name="params (opt)", elements=updated if master else 0.0, bytes=updated * master),
        State(name="exp_avg", elements=updated, bytes=updated * moment),
        State(name="exp_avg_squared", elements=updated, bytes=updated * moment),
        State(name="grad_buffer", elements=gradients / float(storage.gradient_bytes[0]), bytes=gradients),
    ]
    return tuple(row for row in rows if row.bytes > 0)


def _activations(step: Step, stage: str) -> Activations:
    layout = step.problem.layout
    total = float(step.evaluation.memory[stage].activations[0])
    tensors = {name: float(size[0]) for name, size in step.activation_tensors.items() if size[0] > 0}
    if layout.recompute == "full":
        tensors = {"layer input": float(layer_input_bytes(step.cases)[0])}
    per_layer = sum(tensors.values())
    layers, alive = float(getattr(stage_layers(step.cases), stage)[0]), float(step.alive[stage][0])
    plain = float(micro_batches_in_flight(step.cases, np.ones(1))[stage][0])
    held = alive * layers * per_layer
    return Activations(
        per_layer_bytes=per_layer,
        tensors=tensors,
        micro_batches_in_flight=alive,
        num_layers=layers,
        interleaving_factor=alive / plain,
        layers_bytes=held,
        rest_bytes=max(total - held, 0.0),
        total_bytes=total,
    )
