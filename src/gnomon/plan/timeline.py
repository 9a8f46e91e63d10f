"""The pipeline of an estimate as it runs, pass by pass."""

from __future__ import annotations

from gnomon.plan.estimate import PipelineEstimate
from gnomon.plan.simulate import Timeline, simulate
from gnomon.spec import Layout
from gnomon.spec.layout import V_SHAPED_SCHEDULES

FIELDS = ("forward_s", "backward_input_s", "backward_weight_s")


def pipeline_timeline(pipeline: PipelineEstimate, layout: Layout, num_microbatches: int) -> Timeline:
    """Return the timeline of `num_microbatches` with the passes and transfers of an estimate.

    Raises PlanError for a number that the schedule cannot run.
    """
    forward, backward, weight = (_by_rank(pipeline, layout, field) for field in FIELDS)
    return simulate(
        layout.schedule, layout.pp, layout.vpp, num_microbatches, forward, backward, weight, pipeline.transfer_s
    )


def _by_rank(pipeline: PipelineEstimate, layout: Layout, field: str) -> list[list[float]]:
    """Return the seconds of one pass by [rank][chunk]; what the ends have beyond a middle stage lies in their chunks.

    A rank of DualPipe holds two whole stages.
    """
    first, middle, last = (float(getattr(pipeline.passes[stage], field)) for stage in ("first", "middle", "last"))
    if layout.schedule == "dualpipe":
        stages = [first, *[middle] * (layout.pp - 2), last]
        return [[stages[rank], stages[layout.pp - 1 - rank]] for rank in range(layout.pp)]
    folded = layout.schedule in V_SHAPED_SCHEDULES
    chunks = 2 if folded else layout.vpp
    rows = [[middle / chunks] * chunks for _ in range(layout.pp)]
    rows[0][0] += first - middle
    rows[0 if folded else -1][-1] += last - middle
    return [[max(seconds, 0.0) for seconds in row] for row in rows]
