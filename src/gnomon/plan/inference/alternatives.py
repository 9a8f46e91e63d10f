"""What fits, where a served model does not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

from gnomon.errors import GnomonError
from gnomon.plan.inference.estimate import InferenceEstimate
from gnomon.plan.inference.planner import plan_inference
from gnomon.plan.inference.workload import InferenceWorkload
from gnomon.spec import Layout

SHOWN = 3
TIMES_THE_RANKS = (2, 4, 8, 16, 32, 64)


def nearest_serving(estimate: InferenceEstimate) -> list[tuple[dict[str, Any], InferenceEstimate]]:
    """Return up to three ({setting: its other value}, estimate) that fit: a smaller batch, smaller numbers, more ranks.

    Of more ranks the fewest that fit are taken, with the layout of the lowest time per output token.
    """
    found = [(changes, other) for changes in _same_ranks(estimate) if (other := _tried(estimate, changes))]
    for factor in TIMES_THE_RANKS:
        tried = [(changes, other) for changes in _more_ranks(estimate, factor) if (other := _tried(estimate, changes))]
        if tried:
            return [*found, min(tried, key=lambda pair: pair[1].tpot_s)][-SHOWN:]
    return found[:SHOWN]


def _same_ranks(estimate: InferenceEstimate) -> Iterator[dict[str, Any]]:
    workload = estimate.workload
    if estimate.max_batch:
        yield {"batch": estimate.max_batch}
    smaller = [n for n in ("weight_precision", "kv_precision") if getattr(workload, n) in ("fp32", "bf16", "fp16")]
    for names in (*([n] for n in smaller), *([smaller] if len(smaller) > 1 else [])):
        yield dict.fromkeys(names, "fp8")


def _more_ranks(estimate: InferenceEstimate, factor: int) -> Iterator[dict[str, Any]]:
    layout, cluster = estimate.layout, estimate.cluster
    nodes = math.ceil(factor * layout.num_ranks / cluster.accelerators_per_node)
    more = {} if nodes <= cluster.num_nodes else {"num_nodes": nodes}
    for tp, pp in product((1, 2, 4, 8, 16), repeat=2):
        degrees = {"tp": layout.tp * tp, "pp": layout.pp * pp}
        if tp * pp == factor and degrees["tp"] <= max(layout.tp, cluster.accelerators_per_node):
            yield {**{n: value for n, value in degrees.items() if value != getattr(layout, n)}, **more}


def _tried(estimate: InferenceEstimate, changes: dict[str, Any]) -> InferenceEstimate | None:
    """Return the estimate with these changes; None when it cannot run or does not fit."""
    layout, workload, cluster = estimate.layout.to_mapping(), estimate.workload.to_mapping(), estimate.cluster
    for name, value in changes.items():
        if name == "num_nodes":
            cluster = cluster.model_copy(update={"num_nodes": value})
        else:
            (layout if name in layout else workload)[name] = value
    if estimate.model.moe and "tp" in changes and estimate.layout.expert_tp == estimate.layout.tp:
        layout["expert_tp"] = changes["tp"]
    try:
        other = plan_inference(
            estimate.model,
            cluster,
            Layout.from_mapping(layout, where="layout"),
            InferenceWorkload.from_mapping(workload, where="workload"),
        )
    except GnomonError:
        return None
    return other if other.fits else None
