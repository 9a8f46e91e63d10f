"""Runs the training of config.yaml on several numbers of ranks and compares their speed.

    python scaling.py --ranks 1 2 --output scaling [overrides of config.yaml]

The global batch stays the same (strong scaling). Writes scaling.json and scaling.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from pathlib import Path
from typing import Any

from gnomon.pipeline.job import compose_jobs
from gnomon.pipeline.ranks import run_job_on_ranks
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import cpu_model, usable_cores


def measure(ranks: int, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """Train on so many ranks and return the median speed of the logged intervals after the first, and the accuracy."""
    run_dir = folder / f"ranks-{ranks}"
    (job,) = compose_jobs(Path(__file__).parent, "config", [*overrides, f"run_dir={run_dir}"])
    run_job_on_ranks(job, ranks)
    rows = RunDirectory.open(run_dir).read_metrics()
    speeds = [row["samples_per_s"] for row in rows if "samples_per_s" in row][1:]
    accuracy = next(row["test_accuracy"] for row in rows if "test_accuracy" in row)
    return {"ranks": ranks, "samples_per_s": statistics.median(speeds), "test_accuracy": accuracy}


def compare(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with their speed-up over the first one, and the efficiency: speed-up per added share of ranks."""
    first = measured[0]
    rows = []
    for row in measured:
        speed_up = row["samples_per_s"] / first["samples_per_s"]
        rows.append({**row, "speed_up": speed_up, "efficiency": speed_up * first["ranks"] / row["ranks"]})
    return rows


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on; other work on the machine shows in the load."""
    return {
        "cpu": cpu_model(),
        "usable_cores": usable_cores(),
        "threads_per_rank": threads,
        "load_average_1_min": round(os.getloadavg()[0], 2),
    }


def as_markdown(document: dict[str, Any]) -> str:
    """Return a page with the table."""
    lines = ["# Scaling of the CIFAR use case", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in document["machine"].items()]
    lines += ["", "| ranks | samples/s | speed-up | efficiency | test accuracy |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['ranks']} | {row['samples_per_s']:.0f} | {row['speed_up']:.2f} | {row['efficiency']:.0%} "
        f"| {row['test_accuracy']:.3f} |"
        for row in document["rows"]
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ranks", type=int, nargs="+", default=[1, 2], help="numbers of ranks; the first is compared to"
    )
    parser.add_argument("--output", type=Path, default=Path("scaling"), help="folder for the runs and the results")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of each rank, the same for all numbers of ranks"
    )
    arguments, overrides = parser.parse_known_args()
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(arguments.threads))
    rows = compare([measure(ranks, arguments.output, overrides) for ranks in arguments.ranks])
    document = {"machine": machine(arguments.threads), "overrides": overrides, "rows": rows}
    (arguments.output / "scaling.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    page = as_markdown(document)
    (arguments.output / "scaling.md").write_text(page, encoding="utf-8")
    print(page, end="")


if __name__ == "__main__":
    main()
