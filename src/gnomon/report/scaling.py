"""How the rate grows with the accelerators: the same layout with more replicas, and the best layout of each number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gnomon.errors import GnomonError
from gnomon.plan.estimate import Estimate
from gnomon.plan.planner import plan
from gnomon.plan.search import Candidate, search
from gnomon.report.figures import plan as plan_figures
from gnomon.report.panels import make_panel
from gnomon.report.section import Section
from gnomon.report.tables import Table
from gnomon.spec import Workload
from gnomon.units import format_count, format_percent, format_seconds

Progress = Callable[[int, int], None]
COLUMNS = ("accelerators", "batch", "step time", "tokens/s", "each")

WEAK = "Weak scaling adds replicas of this layout, and the batch grows with them."
STRONG = (
    "Strong scaling keeps the batch and takes the best layout of each number of accelerators; "
    "it begins with the fewest on which the model fits."
)


def best_by_number(estimate: Estimate, progress: Progress | None = None) -> list[Candidate]:
    """Return the fastest layout of the same batch on 1, 2, 4, ... accelerators, for those on which one fits.

    progress: called with (numbers of accelerators searched, all of them)
    """
    most = max(
        estimate.layout.num_ranks, min(estimate.cluster.num_accelerators, estimate.cluster.accelerators_per_node)
    )
    numbers = sorted({estimate.layout.num_ranks, *(1 << i for i in range(most.bit_length()) if 1 << i <= most)})
    found = []
    for done, number in enumerate(numbers, start=1):
        found += _best(estimate, number)
        if progress is not None:
            progress(done, len(numbers))
    return found


def _best(estimate: Estimate, number: int) -> list[Candidate]:
    try:
        found = search(estimate.model, estimate.cluster, estimate.workload, accelerators=[number], top=1)
    except GnomonError:
        return []
    return [ranked.candidate for ranked in found.best]


def scaling_section(estimate: Estimate, best: Sequence[Candidate] = ()) -> Section | None:
    """Return the section, None when there is one point alone."""
    replicas = [p for p in (_with_replicas(estimate, dp) for dp in _numbers(estimate.layout.dp)) if p is not None]
    if len(replicas) < 2 and len(best) < 2:
        return None
    tables = (
        Table(
            title="More replicas, more batch", columns=COLUMNS, rows=_replica_rows(replicas), numeric=(0, 1, 2, 3, 4)
        ),
        *_best_table(best),
    )
    return Section(
        key="scaling",
        title="Scaling",
        reading=" ".join(_readings(replicas, best)),
        panels=(
            make_panel(
                "scaling",
                "Tokens per second by accelerators",
                " ".join(([WEAK] if len(replicas) > 1 else []) + ([STRONG] if len(best) > 1 else [])),
                plan_figures.scaling(replicas if len(replicas) > 1 else [], best),
            ),
        ),
        tables=tables if len(replicas) > 1 else tables[1:],
    )


def _readings(replicas: Sequence[Estimate], best: Sequence[Candidate]) -> list[str]:
    readings = []
    if len(replicas) > 1:
        readings.append(_weak_reading(replicas[0], replicas[-1]))
    if len(best) > 1:
        readings.append(_strong_reading(best[0], best[-1]))
    return readings


def _weak_reading(first: Estimate, last: Estimate) -> str:
    kept = last.tokens_per_s_per_accelerator / first.tokens_per_s_per_accelerator
    numbers = f"from {first.layout.num_ranks} to {last.layout.num_ranks} accelerators"
    return f"With more replicas and batch, {numbers}, each keeps {format_percent(kept)} of its rate."


def _strong_reading(first: Candidate, last: Candidate) -> str:
    faster = first.step_time_s / last.step_time_s
    numbers = f"{last.num_accelerators} accelerators are {faster:.3g} times as fast as {first.num_accelerators}"
    return f"With the same batch, {numbers}."


def _replica_rows(replicas: Sequence[Estimate]) -> tuple[tuple[str, ...], ...]:
    return tuple(_cells(p.layout.num_ranks, p.workload, p.step_time_s) for p in replicas)


def _best_table(best: Sequence[Candidate]) -> tuple[Table, ...]:
    from gnomon.plan.render import layout_words

    if len(best) < 2:
        return ()
    rows = tuple(
        (
            *_cells(c.num_accelerators, c.workload, c.step_time_s),
            f"{layout_words(c.layout)}, micro-batch {c.workload.micro_batch}",
        )
        for c in best
    )
    title = "The best layout of each number of accelerators, same batch"
    return (Table(title=title, columns=(*COLUMNS, "layout"), rows=rows, numeric=(0, 1, 2, 3, 4)),)


def _cells(accelerators: int, workload: Workload, step_time_s: float) -> tuple[str, ...]:
    """Return a row under COLUMNS."""
    tokens_per_s = workload.tokens_per_step / step_time_s
    return (
        str(accelerators),
        str(workload.global_batch),
        format_seconds(step_time_s),
        format_count(tokens_per_s),
        format_count(tokens_per_s / accelerators),
    )


def _numbers(dp: int) -> list[int]:
    return sorted({dp, *(1 << i for i in range(dp.bit_length()) if dp % (1 << i) == 0)})


def _with_replicas(estimate: Estimate, dp: int) -> Estimate | None:
    layout = estimate.layout.to_mapping()
    layout.update(dp=dp, shard_ranks=None)
    workload = estimate.workload.to_mapping()
    workload["global_batch"] = estimate.workload.global_batch * dp // estimate.layout.dp
    try:
        fewer = type(estimate.layout).from_mapping(layout, where="layout")
        return plan(estimate.model, estimate.cluster, fewer, Workload.from_mapping(workload, where="workload"))
    except GnomonError:
        return None
