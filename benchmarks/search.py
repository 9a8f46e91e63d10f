"""How fast `gnomon plan search` is, how much memory it takes, and how it ranks measured layouts.

python benchmarks/search.py [--published results.csv] [--large] [--output benchmarks/search.md]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import evaluate
from gnomon.plan.search import RecomputeChoice, SearchSpace, default_space
from gnomon.plan.search.batch import Evaluator
from gnomon.plan.search.run import _blocks, search
from gnomon.plan.search.space import OUTER
from gnomon.spec import ModelSpec, Workload
from gnomon.spec.catalog import load_cluster, load_model, load_stack

PROBLEMS = {"llama-3.1-70b": 512, "llama-3.1-405b": 1024, "deepseek-v3": 1024, "gpt3-175b": 1024}
BATCH, SEQ_LEN = 2048, 4096
SECONDS = 5.0  # a small space is searched again and again for so long: one pass is over in a third of a second
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
MEASURED = "BigScience BLOOM 176B prequel"


def problem(name: str, accelerators: int) -> tuple[ModelSpec, object, Workload, SearchSpace]:
    model, cluster = load_model(name), load_cluster("dgx-h100", accelerators // 8)
    workload = Workload(seq_len=SEQ_LEN, global_batch=BATCH, micro_batch=1, precision="bf16", stack="megatron-core")
    space = default_space(model, accelerators, 8, BATCH)
    recompute = (*space.recompute[:3], *(RecomputeChoice(mode="full", share=s) for s in SHARES))
    return model, cluster, workload, space.model_copy(update={"recompute": recompute})


def speed(name: str, accelerators: int) -> str:
    model, cluster, workload, space = problem(name, accelerators)
    evaluator = Evaluator(model, cluster, workload, space, accelerators)
    batches = list(evaluator.batches(*_blocks(space)[0]))
    evaluator.rejected.clear()
    evaluated = passes = 0
    began = time.perf_counter()
    while passes == 0 or time.perf_counter() - began < SECONDS:
        evaluated += sum(batch.numbers.size for block in _blocks(space) for batch in evaluator.batches(*block))
        passes += 1
    seconds = (time.perf_counter() - began) / passes
    evaluated, rejected = evaluated // passes, evaluator.rejected.total() // passes
    worst = difference(model, cluster, workload, space, accelerators, batches)
    return (
        f"| {name} | {accelerators} | {space.size:,} | {evaluated:,} | {rejected:,} | {seconds:.2f} "
        f"| **{evaluated / seconds:,.0f}** | {(evaluated + rejected) / seconds:,.0f} | {worst:.1e} |"
    )


def difference(model, cluster, workload, space, accelerators, batches) -> float:  # type: ignore[no-untyped-def]
    """Return the largest relative difference of time and memory between the search and the scalar path."""
    random, worst = np.random.default_rng(0), 0.0
    for batch in batches:
        shape = batch.numbers.shape
        for place in random.integers(0, batch.numbers.size, 5):
            layout, asked = space.layout(int(batch.numbers.reshape(-1)[place]), accelerators, workload)
            alone = evaluate(Cases.of(model, cluster, layout, asked, load_stack(workload.stack)))
            for one, many in (
                (alone.step_time_s, batch.evaluation.step_time_s),
                (alone.peak_memory_bytes, batch.evaluation.peak_memory_bytes),
            ):
                found = float(np.broadcast_to(many, shape).reshape(-1)[place])
                worst = max(worst, abs(float(one[0]) / found - 1.0))
    return worst


def large() -> str:
    """Search at least 1e8 candidates in a process of its own; return its size, time and peak memory."""
    here = Path(__file__)
    run = subprocess.run(
        [sys.executable, "-c", f"import runpy; m = runpy.run_path({str(here)!r}); m['run_large']()"],
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


def run_large() -> None:
    model, cluster, workload, space = problem("deepseek-v3", 1024)
    shares = tuple(RecomputeChoice(mode="full", share=round(i / 60, 4)) for i in range(1, 61))
    space = space.model_copy(update={"recompute": (*space.recompute[:2], *shares), "pp": (1, 2, 4, 8, 16, 32, 64)})
    space = space.model_copy(update={"micro_batch": (1, 2, 4, 8, 16, 32, 64)})
    began = time.perf_counter()
    result = search(model, cluster, workload, space=space, top=10)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{space.size:,} candidates, {result.num_evaluated:,} evaluated in {seconds:.0f} s "
        f"({result.num_evaluated / seconds:,.0f}/s); peak memory of the process {peak / 2**20:,.0f} MiB; "
        f"{space.count(OUTER):,} runs per state"
    )


def ranking(path: Path) -> list[str]:
    from gnomon.plan.published.score import score, spearman
    from gnomon.plan.published.table import read_table

    table = read_table(path)
    scored = {row.id: row for row in score(table)}
    rows = [r for r in table.rows() if r["source"] == MEASURED and scored[str(r["id"])].error is not None]
    lines = ["| rows | layouts | Spearman of step time |", "|---|--:|--:|"]
    for title, chosen in (("all", rows), ("grade A", [r for r in rows if r["grade"] == "A"])):
        pairs = [(scored[str(r["id"])], r) for r in chosen]
        predicted = np.array([s.prediction.step_time_s for s, _ in pairs])
        measured = predicted / (1.0 + np.array([s.error for s, _ in pairs]))
        lines.append(f"| {title} | {len(pairs)} | {spearman(predicted, measured, np.ones_like(measured)):.3f} |")
        groups: dict[str, list[int]] = {}
        for index, (_, row) in enumerate(pairs):
            groups.setdefault(str(row["config_group"] or row["id"]), []).append(index)
        means = [np.array([values[g].mean() for g in groups.values()]) for values in (predicted, measured)]
        rho = spearman(means[0], means[1], np.ones(len(groups)))
        lines.append(f"| {title}, repeats averaged | {len(groups)} | {rho:.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    # first: a process starts with the peak memory of the one that made it
    largest = ["", "## 10^8 candidates", "", large()] if arguments.large else []
    lines = [
        "# Search",
        "",
        "Written by `benchmarks/search.py`; do not edit. One core, float64. An evaluation is whole: time by term,",
        "memory of each kind of stage. Candidates that cannot run are counted apart and not among the evaluations, but",
        "the time to reject them is in the rate. Each space is searched for 5 s; seconds are of one pass.",
        "",
        f"- {datetime.date.today()}, {platform.processor() or platform.machine()}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, load {os.getloadavg()[0]:.1f}",
        "",
        "| model | accelerators | candidates | evaluated | rejected | s | evaluations/s | candidates/s "
        "| against the scalar path |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        *(speed(name, count) for name, count in PROBLEMS.items()),
        *largest,
    ]
    if arguments.published:
        lines += ["", "## Measured layouts", "", f"Rows of *{MEASURED}*.", "", *ranking(arguments.published)]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
