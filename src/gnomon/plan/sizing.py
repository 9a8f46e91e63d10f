"""Choose the largest GPT that a machine can train within a time budget."""

from __future__ import annotations

from gnomon.errors import PlanError
from gnomon.plan.estimate import Estimate
from gnomon.plan.planner import plan
from gnomon.spec import ClusterSpec, Layout, ModelSpec, Workload
from gnomon.units import format_bytes, format_seconds

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


def fit_model(
    cluster: ClusterSpec, layout: Layout, workload: Workload, *, num_steps: int, budget_s: float
) -> tuple[ModelSpec, Estimate]:
    """Return the largest model of the ladder whose `num_steps` steps fit the budget and the memory, with its estimate.

    Raises PlanError when not even the smallest does.
    """
    best: tuple[ModelSpec, Estimate] | None = None
    smallest: Estimate | None = None
    for model in gpt_ladder(workload.seq_len):
        estimate = plan(model, cluster, layout, workload)
        smallest = smallest or estimate
        if estimate.step_time_s * num_steps > budget_s or estimate.fits is False:
            break
        best = (model, estimate)
    if best is None:
        assert smallest is not None
        raise PlanError(
            f"Not even {smallest.model.name} trains {num_steps} steps within {format_seconds(budget_s)} on "
            f"'{cluster.name}': it needs {format_seconds(smallest.step_time_s * num_steps)} and "
            f"{format_bytes(smallest.memory.total_bytes)} per rank. Set fewer steps or a smaller batch."
        )
    return best
