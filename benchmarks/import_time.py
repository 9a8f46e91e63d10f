"""What importing gnomon's training costs against importing PyTorch alone.

    python benchmarks/import_time.py --write

Each import happens in a fresh process; the statements take turns. The time is user CPU time of the process, from its
start, so the start of Python is in all of them. `--write` puts the table into import_time.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from gnomon.runtime.versions import cpu_model, package_versions

BASE = "import torch"
STATEMENTS = {
    BASE: None,
    "import torch, gnomon.train": 1.15,
    "import torch; from gnomon.train import Trainer": None,
    "import torch; from gnomon.train import SupervisedTrainer": None,
}
COMMAND = "python benchmarks/import_time.py --write"


def user_time_s(statement: str) -> float:
    """Return the user CPU time of a fresh process that imports, in seconds."""
    before = os.times().children_user
    subprocess.run([sys.executable, "-c", statement], check=True)
    return os.times().children_user - before


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the times of each statement, in seconds; one round before that fills the caches of the disk."""
    times: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for index in range(rounds + 1):
        for statement in STATEMENTS:
            time_s = user_time_s(statement)
            if index:
                times[statement].append(time_s)
    return times


def render(times: dict[str, list[float]], rounds: int) -> str:
    """Return the page."""
    versions = package_versions()
    base = statistics.median(times[BASE])
    rows = [
        f"| `{statement}` | {min(values):.3f} | {statistics.median(values):.3f} | "
        f"{statistics.median(values) / base:.3f} | {limit if (limit := STATEMENTS[statement]) else ''} |"
        for statement, values in times.items()
    ]
    return "\n".join(
        [
            "# Import time",
            "",
            f"User CPU time in seconds of a fresh process that runs one statement; the statements take turns, {rounds} "
            "rounds.",
            "`import gnomon.train` imports no trainer until one is used; the two lines after it show what a trainer",
            "adds, most of it the validation library pydantic and the descriptions built with it.",
            "",
            f"- Hardware: {cpu_model()}",
            f"- Versions: gnomon {versions['gnomon']}, PyTorch {versions['torch']}",
            f"- Command: `{COMMAND}`",
            "",
            "| statement | min [s] | median [s] | ratio of medians | limit |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="write import_time.md beside this file")
    arguments = parser.parse_args()
    page = render(measure(arguments.rounds), arguments.rounds)
    print(page)
    if arguments.write:
        Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
