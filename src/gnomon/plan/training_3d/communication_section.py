"""What each kind of parallelism sends, before and after overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.communication import layer_traffic, stage_send_s
from gnomon.plan.network import NONE, all_gather_s, all_reduce_s, group
from gnomon.plan.stages import held_parameters
from gnomon.plan.training_3d.iteration_section import stage_compute_s
from gnomon.plan.training_3d.result import CrossDC, DataParallel, GradientCollective, Transfer
from gnomon.plan.training_3d.step import Collective, Step


def tensor_transfers(step: Step) -> tuple[Transfer, ...]:
    """Return one collective of each kind that a layer needs for one micro-batch; none without tensor parallelism."""
    cases, layout = step.cases, step.problem.layout
    if layout.tp == 1:
        return ()
    path = group(cases.network, cases.split.tp, np.ones(1))
    size = cases.tokens * cases.model.hidden * cases.storage.compute_bytes
    if not layout.sequence_parallel:
        return (_transfer("TP All-Reduce", all_reduce_s(size, path), size),)
    once = all_gather_s(size, path)
    return _transfer("TP All-Gather", once, size), _transfer("TP Reduce-Scatter", once, size)


def context_transfers(step: Step) -> tuple[Transfer, ...]:
    """Return the exchange of keys and values of one layer and micro-batch."""
    cases, layout = step.cases, step.problem.layout
    if layout.cp == 1:
        return ()
    traffic = layer_traffic(cases)
    size = 2.0 * cases.tokens / cases.split.tp * cases.model.key_value * cases.storage.compute_bytes
    return (
        _transfer("Ring Exchange (forward)", traffic.context_forward, size),
        _transfer("Ring Exchange (backward)", traffic.context_backward, 2.0 * size),
    )


def expert_transfers(step: Step) -> tuple[Transfer, ...]:
    """Return the all-to-alls of the forward pass of one layer with experts and one micro-batch."""
    cases, layout = step.cases, step.problem.layout
    if layout.ep == 1 or cases.model.moe_layers[0] == 0:
        return ()
    once = layer_traffic(cases).expert_forward * cases.model.num_layers / cases.model.moe_layers / 2.0
    size = cases.routed_tokens * cases.model.hidden * cases.storage.compute_bytes
    return _transfer("Dispatch All-to-All", once, size), _transfer("Combine All-to-All", once, size)


def pipeline_transfers(step: Step) -> tuple[Transfer, ...]:
    """Return the transfer of one micro-batch's activations to the next stage."""
    cases = step.cases
    if step.problem.layout.pp == 1:
        return ()
    # at one byte per second, a transfer takes as many seconds as it has bytes
    network = cases.network
    unit = replace(
        network,
        bandwidth=tuple(np.ones_like(x) for x in network.bandwidth),
        latency_s=tuple(np.zeros_like(x) for x in network.latency_s),
        neighbours=NONE,
        axes=NONE,
    )
    return (_transfer("PP Send/Recv", stage_send_s(cases), stage_send_s(replace(cases, network=unit))),)


def data_parallel_section(step: Step) -> DataParallel:
    """Return how gradients and weights travel between replicas."""
    problem, parameters = step.problem, float(held_parameters(step.cases)[0])
    forward, backward = stage_compute_s(step)
    zero = problem.layout.zero_stage
    names = ("All-Reduce" if zero == 0 else "Reduce-Scatter", "All-Gather")
    pairs = ((f"{names[0]} (Gradients)", step.reduction), (f"{names[1]} (Parameters)", step.gather))
    return DataParallel(
        forward_s=forward,
        backward_s=backward,
        parameters=parameters,
        parameters_bytes=parameters * float(step.cases.storage.weight_bytes[0]),
        num_buckets=problem.num_buckets,
        collectives=tuple(_collective(name, found) for name, found in pairs if found.total_s[0] > 0),
    )


def cross_dc_section(step: Step) -> CrossDC | None:
    """Return the datacentres, or None when there is one."""
    sites, ranks = step.problem.datacentres, step.problem.layout.num_ranks
    if sites is None:
        return None
    return CrossDC(
        num_datacentres=sites.count,
        replicas_per_datacentre=sites.replicas,
        accelerators_per_datacentre=ranks // sites.count,
        bandwidth_bytes_per_s=sites.bandwidth_bytes_per_s,
        bandwidth_per_accelerator_bytes_per_s=sites.bandwidth_bytes_per_s / (ranks / sites.count),
        latency_s=sites.latency_s,
    )


def _transfer(name: str, seconds: Array, size: Array) -> Transfer:
    return Transfer(name=name, seconds=float(seconds[0]), bytes=float(size[0]))


def _collective(name: str, found: Collective) -> GradientCollective:
    return GradientCollective(
        name=name,
        latency_s=float(found.latency_s[0]),
        bandwidth_s=float(found.bandwidth_s[0]),
        total_s=float(found.total_s[0]),
        exposed_s=float(found.exposed_s[0]),
        one_site_s=float(found.one_site_s[0]),
    )
