"""What one tracker call costs the training loop.

    python benchmarks/trackers.py --write

A row of eight figures is logged again and again by a loop of one thread that otherwise works for half a millisecond;
each call is timed by itself. The variants take turns, so that other load on the machine hits all of them. `--write`
puts the table into trackers.md beside this file.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import cpu_model
from gnomon.track.collection import create_trackers
from gnomon.track.registry import parse_trackers

LIMIT_US = 20
WORK_S = 0.5e-3
COMMAND = "python benchmarks/trackers.py --write"
FORWARDED = ["mlflow", "tensorboard", {"name": "wandb", "mode": "offline"}, "prov"]


def row(step: int) -> dict:
    return {
        "step": step,
        "tokens": 2048 * step,
        "loss": 2.5 / step,
        "lr": 1e-3,
        "grad_norm": 1.0,
        "step_time_s": 0.0005,
        "tokens_per_s": 4.1e6,
        "mfu": 0.41,
    }


def gnomon_tracker(folder: Path, trackers: list) -> tuple[Callable, Callable]:
    run = RunDirectory.create(folder / "run", "{}\n", {})
    tracker = create_trackers(parse_trackers(trackers), run, RankEnvironment(), 1000)
    return tracker.log, tracker.close


def plain_tensorboard(folder: Path) -> tuple[Callable, Callable]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(values: dict) -> None:
        for name, value in values.items():
            if name != "step":
                writer.add_scalar(name, value, values["step"])

    return log, writer.close


def plain_mlflow(folder: Path) -> tuple[Callable, Callable]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.start_run()
    return lambda values: mlflow.log_metrics(
        {k: v for k, v in values.items() if k != "step"}, values["step"]
    ), mlflow.end_run


def work() -> None:
    end_s = time.perf_counter() + WORK_S
    while time.perf_counter() < end_s:
        pass


def time_calls(log: Callable, first: int, count: int) -> list[float]:
    """Return the seconds of each of `count` calls."""
    times = []
    gc.collect()
    for step in range(first, first + count):
        values = row(step)
        work()
        started_s = time.perf_counter()
        log(values)
        times.append(time.perf_counter() - started_s)
    return times


def measure(rounds: int, calls: int) -> dict[str, list[float]]:
    """Return the seconds of all calls by variant."""
    makers = {
        "gnomon: metrics.jsonl": (lambda folder: gnomon_tracker(folder, []), calls),
        "gnomon: metrics.jsonl, MLflow, TensorBoard, W&B, PROV": (
            lambda folder: gnomon_tracker(folder, FORWARDED),
            calls,
        ),
        "TensorBoard: SummaryWriter.add_scalar per figure": (plain_tensorboard, calls),
        "MLflow: log_metrics to a database file": (plain_mlflow, max(10, calls // 20)),
    }
    found: dict[str, list[float]] = {name: [] for name in makers}
    with tempfile.TemporaryDirectory() as folder:
        variants = {}
        for name, (make, count) in makers.items():
            place = Path(folder, str(len(variants)))
            place.mkdir()
            variants[name] = (*make(place), count)
        time.sleep(15)  # the processes of trackers have started by then; the start of a run is measured below
        for index in range(rounds):
            for name, (log, _, count) in variants.items():
                found[name] += time_calls(log, 1 + index * count, count)
        for _, close, _ in variants.values():
            close()
        place = Path(folder, "start")
        place.mkdir()
        log, close = gnomon_tracker(place, FORWARDED)
        found["the same, while the processes of the trackers start"] = time_calls(log, 1, calls)
        close()
    return found


def table(found: dict[str, list[float]]) -> str:
    lines = ["| one row of eight figures | calls | min µs | median µs | 99th percentile µs | limit of the median |",
             "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, times in found.items():
        us = sorted(1e6 * t for t in times)
        limit = LIMIT_US if name.startswith(("gnomon", "the same")) else ""
        figures = [us[0], statistics.median(us), us[int(0.99 * len(us))]]
        lines.append(f"| {name} | {len(us)} | {' | '.join(f'{figure:.1f}' for figure in figures)} | {limit} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=400, help="per round and variant")
    parser.add_argument("--write", action="store_true", help="write trackers.md")
    arguments = parser.parse_args()
    found = measure(arguments.rounds, arguments.calls)
    text = table(found)
    print(text)
    if arguments.write:
        packages = ("gnomon", "mlflow", "tensorboard", "wandb", "prov")
        versions = ", ".join(f"{name} {version(name)}" for name in packages)
        page = Path(__file__).with_suffix(".md")
        page.write_text(
            f"{PAGE}\n- Hardware: {cpu_model()}, {len(os.sched_getaffinity(0))} cores; load average at the end "
            f"{os.getloadavg()[0]:.1f}\n- Versions: Python {sys.version.split()[0]}, {versions}\n"
            f"- Command: `{COMMAND}`\n\n{text}\n",
            encoding="utf-8",
        )
    gnomon = [times for name, times in found.items() if name.startswith("gnomon")]
    return int(any(statistics.median(times) > LIMIT_US * 1e-6 for times in gnomon))


PAGE = """# What a tracker call costs the loop

A row of eight figures is logged by a loop of one thread that otherwise works for half a millisecond per step. Each
call is timed by itself, in wall time; the variants take turns within one process. gnomon's trackers read what the run
has written in processes of their own, so that their number does not matter to the loop; what they need of the machine,
they take from other cores. The plain calls of the libraries are measured in the same loop, for comparison.
"""

if __name__ == "__main__":
    sys.exit(main())
