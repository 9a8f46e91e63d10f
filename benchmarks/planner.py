"""The planner against published training results: write benchmarks/planner.md.

    python benchmarks/planner.py FILE.csv [--state STATE.json] [--output FILE.md]

FILE.csv has the columns of docs/validate.md. The fits with each source left out take minutes; with --state they are
kept, and an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

import gnomon
from gnomon.plan.evaluate import evaluate
from gnomon.plan.published.columns import text
from gnomon.plan.published.held_out import Study
from gnomon.plan.published.observations import Observations, observe
from gnomon.plan.published.score import Scored, errors_of, memory_errors_of, quantile, score, statistics, summarize
from gnomon.plan.published.table import read_table
from gnomon.runtime.versions import describe_environment
from gnomon.spec.device_rates import operand_dtype

# mean absolute errors on the same rows of vTrain, one node of 8 GPUs, none of them fitted to it
PEERS = {"dlcalc": 0.62, "llm-analysis": 0.62, "Calculon": 0.42}
RANKED_ROWS = 10
# rows whose family waits for each launch, as if it did not
AHEAD = {"BigScience BLOOM 176B prequel": {"overlap_notes": "CUDA_LAUNCH_BLOCKING=0"}}
SUBSETS: dict[str, Callable[[Scored], bool]] = {
    "grade A without vTrain": lambda row: row.grade == "A" and not row.source.startswith("vTrain"),
    "grades A and B": lambda row: row.grade in ("A", "B"),
    "grades A and B without vTrain": lambda row: row.grade in ("A", "B") and not row.source.startswith("vTrain"),
    "vTrain, one node": lambda row: row.source.startswith("vTrain"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    arguments = parser.parse_args()
    table = read_table(arguments.file)
    begin = time.perf_counter()
    rows = score(table)
    elapsed_s = time.perf_counter() - begin
    observations = observe(table.rows())
    fits = fit_without_each(observations, arguments.state)
    study = Study.of_time(observations)
    held = {s: (errors_on(study, fits[""], s), errors_on(study, fits[s], s)) for s in study.sources}
    sections = [
        heading(arguments.file.name, rows, elapsed_s),
        subsets(rows, observations, fits),
        *(by(rows, name) for name in ("source", "grade", "hardware")),
        held_out(held, constant_mfu(observations)),
        ranks(rows, score([[{**row, **AHEAD.get(row["source"] or "", {})} for row in table.rows()]])),
        memory(rows),
        peers(rows),
        refused(rows),
        worst(rows),
    ]
    arguments.output.write_text("\n".join(sections), encoding="utf-8")
    print(f"written to {arguments.output}")


def heading(name: str, rows: Sequence[Scored], elapsed_s: float) -> str:
    errors, environment = errors_of(rows), describe_environment()
    predicted = sum(row.prediction.refused is None for row in rows)
    return "\n".join(
        [
            "# The planner against published training results",
            "",
            "Written by `benchmarks/planner.py`; do not edit. Errors are of the predicted step time over the measured "
            "one; rows of one configuration count as one together. The planner sees the configuration alone.",
            "",
            f"- Rows: {len(rows)} in `{name}`, {predicted} predicted, {errors['n']} compared, in {elapsed_s:.1f} s.",
            f"- Absolute error: median {percent(errors['median'])}, mean {percent(errors['mean'])}, "
            f"90th percentile {percent(errors['p90'])}; bias {percent(errors['bias'], True)}; "
            f"rank correlation {errors['spearman']:.3f}.",
            f"- gnomon {gnomon.__version__}, Python {environment['python']}; `python benchmarks/planner.py {name}`.",
            "- The constants of the catalog were estimated from rows of this table (`gnomon plan fit`). What they are "
            "worth elsewhere is in the section *Sources left out*.",
            "",
        ]
    )


def by(rows: Sequence[Scored], name: str) -> str:
    groups = summarize(rows)["by"][name]
    lines = [
        [key, g["rows"], g["n"], *cells(g), g["refused"] or ""] for key, g in groups.items() if g["n"] or g["refused"]
    ]
    return section(
        f"Step time by {name}", [name, "rows", "compared", "median", "mean", "p90", "bias", "refused"], lines
    )


def fit_without_each(observations: Observations, state: Path | None) -> dict[str, np.ndarray]:
    """Return {source: log errors of all rows, fitted without it from the priors}, and "": fitted with all."""
    study = Study.of_time(observations)
    known: dict[str, list[float]] = json.loads(state.read_text()) if state and state.exists() else {}

    for source in ("", *study.sources):
        if source not in known:
            print(f"fitting without {source}" if source else "fitting with all sources", flush=True)
            known[source] = study.fit(without=source or None).log_errors.tolist()
            if state:
                state.write_text(json.dumps(known))
    return {source: np.asarray(errors) for source, errors in known.items()}


def subsets(rows: Sequence[Scored], observations: Observations, fits: dict[str, np.ndarray]) -> str:
    """Return the errors of the grades with the catalog's constants, and with those fitted without each row's source."""
    outside = np.asarray([fits[s][i] if s in fits else np.nan for i, s in enumerate(observations.sources)])
    place = {str(row["id"]): i for i, row in enumerate(observations.rows)}
    lines = []
    for name, chosen in SUBSETS.items():
        members = [row for row in rows if row.error is not None and chosen(row)]
        inside = errors_of(members)
        sizes = Counter(row.group for row in members)
        errors = np.exp([outside[place[row.id]] for row in members]) - 1.0
        left = statistics(errors, np.asarray([1.0 / sizes[row.group] for row in members]))
        values = [found[key] for found in (inside, left) for key in ("median", "p90")]
        lines.append([name, inside["n"], *(percent(value) for value in values)])
    text_ = "With the constants of the catalog, and with those fitted without the source of each row."
    return section("Grades", ["rows", "n", "median", "p90", "left out: median", "p90"], lines, text_)


def errors_on(study: Study, log_errors: np.ndarray, source: str) -> dict:
    observations = study.observations
    here = np.asarray([s == source for s in observations.sources]) & np.isfinite(study.log_targets)
    groups = [str(row.get("config_group") or row["id"]) for row in np.asarray(observations.rows, dtype=object)[here]]
    weights = np.asarray([1.0 / groups.count(group) for group in groups])
    return statistics(np.exp(log_errors[here]) - 1.0, weights)


def constant_mfu(observations: Observations) -> dict[str, dict]:
    """Return the errors of the simplest model on each source: the mean MFU of all other sources on the same

    accelerator in the same precision and recomputation, else on the same accelerator, else of all.
    """
    study = Study.of_time(observations)
    seconds_at_peak = np.log(model_flops(observations) / peaks(observations))
    mfu = seconds_at_peak - study.log_targets
    keys = [
        (text(row, "hardware"), problem.workload.precision, problem.layout.recompute)
        for row, problem in zip(observations.rows, observations.problems, strict=True)
    ]
    result = {}
    for source in study.sources:
        weights = observations.weights(study.log_targets, source)
        predicted = np.asarray([seconds_at_peak[i] - mean_mfu(i, keys, mfu, weights) for i in range(len(keys))])
        result[source] = errors_on(study, predicted - study.log_targets, source)
    return result


def model_flops(observations: Observations) -> np.ndarray:
    """Return the model FLOPs of one step on one accelerator."""
    ranks = np.asarray([problem.layout.num_ranks for problem in observations.problems])
    return np.asarray(evaluate(observations.cases).model_flops / ranks)


def peaks(observations: Observations) -> np.ndarray:
    """Return the dense peak of one accelerator in each row's precision."""
    return np.asarray(
        [
            problem.cluster.accelerator.peak_flops[operand_dtype(problem.workload.precision)]
            for problem in observations.problems
        ]
    )


def mean_mfu(index: int, keys: list[tuple], mfu: np.ndarray, weights: np.ndarray) -> float:
    for length in (3, 1, 0):
        same = np.asarray([key[:length] == keys[index][:length] for key in keys]) & (weights > 0)
        if np.any(same):
            return float(np.average(mfu[same], weights=weights[same]))
    raise ValueError("no row has any weight")


def held_out(held: dict[str, tuple[dict, dict]], simple: dict[str, dict]) -> str:
    lines = [
        [
            source,
            inside["n"],
            percent(inside["median"]),
            percent(outside["median"]),
            percent(outside["mean"]),
            percent(outside["bias"], True),
            percent(simple[source]["median"]),
            percent(simple[source]["mean"]),
        ]
        for source, (inside, outside) in held.items()
    ]
    text_ = (
        "Each source predicted with constants that were fitted to all other sources, from priors that no training run "
        "had a part in. The last columns are the simplest model there is, one MFU per accelerator, precision and "
        "recomputation, averaged over all other sources."
    )
    header = ["source", "rows", "median, fitted with it", "median, left out", "mean", "bias"]
    return section("Sources left out", [*header, "one MFU: median", "mean"], lines, text_)


def ranks(rows: Sequence[Scored], ahead: Sequence[Scored]) -> str:
    """Return the rank correlations, and those of the sources in AHEAD had their launches run `ahead`."""
    lines = []
    for table, chosen, name in ((rows, (), ""), (ahead, AHEAD, ", as if launches ran ahead")):
        for source, members in grouped(table, lambda row: row.source).items():
            errors = errors_of(members)
            if errors["n"] >= RANKED_ROWS and (not name or source in chosen):
                ranked = (number(errors["spearman"]), number(errors["spearman_tokens_per_s"]))
                lines.append([source + name, errors["n"], *ranked])
    text_ = (
        "Spearman's correlation within a source: of step times, and of tokens per second and accelerator. The last "
        "line is what the synchronous launches of BigScience's job scripts are worth; no other figure knows it."
    )
    return section("Ranking", ["source", "rows", "step time", "tokens/s/accelerator"], lines, text_)


def memory(rows: Sequence[Scored]) -> str:
    lines = []
    for source, members in grouped(rows, lambda row: row.source).items():
        errors = memory_errors_of(members)
        if errors["n"]:
            lines.append([source, errors["n"], *cells(errors)])
    return section("Peak memory", ["source", "rows", "median", "mean", "p90", "bias"], lines)


def peers(rows: Sequence[Scored]) -> str:
    ours = [
        row for row in rows if row.source.startswith("vTrain") and row.prediction.ranks == 8 and row.error is not None
    ]
    if not ours:
        return ""
    mean = errors_of(ours)["mean"]
    lines = [[f"gnomon ({len(ours)} rows)", percent(mean)], *([name, percent(e)] for name, e in PEERS.items())]
    text_ = (
        "Mean absolute error on vTrain's measurements of one node with 8 GPUs (MICRO 2024). The other tools were not "
        "fitted to them; gnomon's software constants were, among other sources: compare *Sources left out*."
    )
    return section("Other tools", ["tool", "mean absolute error"], lines, text_)


def refused(rows: Sequence[Scored]) -> str:
    reasons = defaultdict(list)
    for row in rows:
        if row.prediction.refused is not None:
            reasons[row.prediction.refused].append(row.source)
        elif row.error is None:
            reasons[f"predicted, not compared: {row.basis}"].append(row.source)
    lines = [[reason, len(found), ", ".join(sorted(set(found)))] for reason, found in reasons.items()]
    return section("Refused or not compared", ["reason", "rows", "sources"], lines)


def worst(rows: Sequence[Scored]) -> str:
    known = sorted((row for row in rows if row.error is not None), key=lambda row: -abs(row.error))[:10]
    lines = [
        [r.id, r.source, f"{r.prediction.step_time_s:.4g}", f"{r.measured_s:.4g}", percent(r.error, True)]
        for r in known
    ]
    spread = np.asarray([abs(row.error) for row in rows if row.error is not None])
    text_ = f"{np.mean(spread > 0.5):.1%} of the compared rows are off by more than half; quartile " + (
        f"{percent(quantile(spread, np.ones_like(spread), 0.75))}."
    )
    return section("The ten largest errors", ["id", "source", "predicted s", "measured s", "error"], lines, text_)


def grouped(rows: Iterable[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(sorted(groups.items()))


def cells(errors: dict) -> list[str]:
    return [*(percent(errors[name]) for name in ("median", "mean", "p90")), percent(errors["bias"], True)]


def percent(value: float | None, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{100 * value:+.1f}%" if signed else f"{100 * value:.1f}%"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def section(title: str, header: list[str], lines: list[list], text_: str = "") -> str:
    def row(values: Iterable) -> str:
        return "| " + " | ".join(str(v).replace("|", "\\|") for v in values) + " |"

    rule = "|" + "|".join(["---", *["--:"] * (len(header) - 1)]) + "|"
    return "\n".join([f"## {title}", "", *([text_, ""] if text_ else []), row(header), rule, *map(row, lines), ""])


if __name__ == "__main__":
    main()
