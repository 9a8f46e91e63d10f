"""Choose the largest GPT that a machine can train within a time budget."""

from __future__ import annotations

from gnomon.errors import LayoutError, PlanError
from gnomon.plan.estimate import Estimate
from gnomon.plan.own_loop import check_split
from gnomon.plan.planner import plan
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.units import format_bytes

HEAD_DIM = 64
# (layers, heads): width grows about as fast as depth, the shape that GPT-2 and GPT-3 keep over their sizes
LADDER = (
    (2, 2), (3, 2), (3, 3), (4, 3), (4, 4), (5, 5), (6, 6), (8, 8), (10, 10), (12, 12), (16, 14), (20, 16), (24, 16),
    (24, 20), (30, 24), (36, 28), (36, 32),
)  # fmt: skip
BYTE_VOCABULARY = 256


def gpt_ladder(seq_len: int, vocab_size: int = BYTE_VOCABULARY) -> list[ModelSpec]:
    """Return GPTs from the smallest to the largest, with learned positions for `seq_len` tokens."""
    return [
        ModelSpec(
            name=f"gpt-{layers}x{heads * HEAD_DIM}",
            num_layers=layers,
            hidden_size=heads * HEAD_DIM,
            num_heads=heads,
            vocab_size=vocab_size,
            max_seq_len=seq_len,
            source="gnomon's ladder of GPT sizes",
        )
        for layers, heads in LADDER
    ]


def models_that_divide(layout: Layout, workload: Workload) -> list[ModelSpec]:
    """Return the models of the ladder that the layout can split.

    Raises LayoutError, about the largest, if there is none.
    """
    ladder = gpt_ladder(workload.seq_len)
    found = [model for model in ladder if _divides(model, layout, workload)]
    if not found:
        check_split(ladder[-1], layout, workload)
    return found


def _divides(model: ModelSpec, layout: Layout, workload: Workload) -> bool:
    try:
        check_split(model, layout, workload)
    except LayoutError:
        return False
    return True


def fit_model(
    cluster: ClusterSpec, layout: Layout, workload: Workload, *, num_steps: int, budget_s: float
) -> tuple[ModelSpec, Estimate]:
    """Return the largest model of the ladder whose `num_steps` steps fit the budget and the memory, with its estimate.

    The smallest that the layout can split is returned even when it takes longer, as its estimate shows. Raises
    LayoutError when there is none, and PlanError when the memory does not hold it.
    """
    smallest, *larger = models_that_divide(layout, workload)
    best = (smallest, plan(smallest, cluster, layout, workload))
    if best[1].fits is False:
        raise PlanError(
            f"Not even {smallest.name} fits '{cluster.name}': it needs "
            f"{format_bytes(best[1].memory.total_bytes)} per rank. Set a smaller micro_batch or seq_len."
        )
    for model in larger:
        estimate = plan(model, cluster, layout, workload)
        if estimate.step_time_s * num_steps > budget_s or estimate.fits is False:
            break
        best = (model, estimate)
    return best
