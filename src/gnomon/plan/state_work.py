"""What a rank's share of the parameters costs: their reduction, sharding, update and memory.

It depends on which parameters a rank holds and with whom it shares them (the parallel degrees and ZeRO): not on the
micro-batch, the schedule or recomputation. A search works it out once for all layouts that differ in those alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.communication import gradient_reduction_s, shard_traffic
from gnomon.plan.memory import StateBytes, state_bytes
from gnomon.plan.operators import step_operators
from gnomon.plan.price import PricedOperator, Work, price, work_at
from gnomon.plan.stages import STAGES, StageLayers, stage_layers, updated_parameters


@dataclass(frozen=True, kw_only=True)
class StateWork:
    """Seconds of one step, except `accumulation` (each micro-batch after the first) and `shard_*_s` (one layer and
    micro-batch, before any overlap)."""

    operators: tuple[PricedOperator, ...]
    layers: StageLayers
    step: Work
    accumulation: Work
    shard_gather_s: Array
    shard_scatter_s: Array
    reduction_s: Array
    last_bucket_s: Array
    gather_s: Array
    optimizer_bytes: Array
    bytes: dict[str, StateBytes]


def state_work(cases: Cases) -> StateWork:
    """Price the optimizer step and the collectives of gradients and weights."""
    priced = tuple(price(operator, cases) for operator in step_operators(cases))
    shard_gather_s, shard_scatter_s = shard_traffic(cases)
    reduction, last, gather = gradient_reduction_s(cases)
    return StateWork(
        operators=priced,
        layers=stage_layers(cases),
        step=work_at(priced, "step"),
        accumulation=work_at(priced, "accumulation"),
        shard_gather_s=shard_gather_s,
        shard_scatter_s=shard_scatter_s,
        reduction_s=reduction,
        last_bucket_s=last,
        gather_s=gather,
        optimizer_bytes=updated_parameters(cases) * cases.storage.master_bytes,
        bytes={stage: state_bytes(cases, stage) for stage in STAGES},
    )
