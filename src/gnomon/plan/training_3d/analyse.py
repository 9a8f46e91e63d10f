"""A configuration in dlcalc's schema in, the whole report out."""

from __future__ import annotations

from gnomon.plan.parameters import count_parameters
from gnomon.plan.training_3d.communication_section import (
    context_transfers,
    cross_dc_section,
    data_parallel_section,
    expert_transfers,
    pipeline_transfers,
    tensor_transfers,
)
from gnomon.plan.training_3d.iteration_section import (
    bubble_section,
    final_section,
    gemm_section,
    iteration_section,
    peak_flops_per_s,
)
from gnomon.plan.training_3d.memory_section import memory_section
from gnomon.plan.training_3d.problem import Problem, build_problem
from gnomon.plan.training_3d.result import Architecture, Data, Hardware, Training3D
from gnomon.plan.training_3d.schema import TrainingConfig
from gnomon.plan.training_3d.step import Step, evaluate_step
from gnomon.spec import StackSpec


def analyse(config: TrainingConfig, name: str = "model", stack: StackSpec | None = None) -> Training3D:
    """Return the report on one training step of `config`; a model that does not fit is a verdict, not an error.

    `stack` replaces the catalog's. Raises GnomonError for what cannot run or cannot be priced.
    """
    step = evaluate_step(build_problem(config, name, stack))
    return Training3D(
        config=config.model_dump(mode="json", exclude_none=True),
        hardware=_hardware(step),
        cross_dc=cross_dc_section(step),
        data=_data(step.problem),
        architecture=_architecture(step.problem),
        memory=memory_section(step),
        gemms=gemm_section(step),
        tensor=tensor_transfers(step),
        context=context_transfers(step),
        expert=expert_transfers(step),
        pipeline=pipeline_transfers(step),
        bubble=bubble_section(step),
        data_parallel=data_parallel_section(step),
        iteration=iteration_section(step),
        final=final_section(step),
        assumptions=step.problem.assumptions,
    )


def _hardware(step: Step) -> Hardware:
    cluster, ranks = step.problem.cluster, step.problem.layout.num_ranks
    rates = cluster.source if cluster.efficiency else f"'{cluster.rates.name}'" if cluster.rates else ""
    return Hardware(
        node_type=step.problem.config.hardware.node_type,
        cluster=cluster.name,
        accelerator=cluster.accelerator.name,
        num_accelerators=ranks,
        num_nodes=cluster.num_nodes,
        memory_bytes=cluster.accelerator.memory_bytes,
        peak_flops_per_s=peak_flops_per_s(step),
        memory_bandwidth_bytes_per_s=cluster.accelerator.memory_bandwidth_bytes_per_s,
        precision=step.problem.workload.precision,
        rates=rates,
    )


def _data(problem: Problem) -> Data:
    workload = problem.workload
    return Data(
        global_batch=workload.global_batch,
        tokens_per_step=workload.tokens_per_step,
        batch_per_replica=workload.global_batch // problem.layout.dp,
        num_micro_batches=problem.num_micro_batches,
        seq_len=workload.seq_len,
    )


def _architecture(problem: Problem) -> Architecture:
    model, count = problem.model, count_parameters(problem.model)
    return Architecture(
        parameters=count.total,
        active_parameters=count.active,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        num_moe_layers=problem.config.model.num_moe_layers(),
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
    )
