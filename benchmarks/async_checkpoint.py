"""How long a checkpoint holds up the training loop, written at once and written by a thread.

    python benchmarks/async_checkpoint.py --write

A stack of linear layers whose weights and AdamW state are 192 MiB together. Both ways save to the same disk, in turns;
a save is timed until the loop could go on. Between two saves of the thread its writing is waited for, so that only the
copying is counted, as in a run that saves seldom enough. `--write` puts the table into async_checkpoint.md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.versions import cpu_model, package_versions
from gnomon.strategy.single import SingleStrategy
from gnomon.train.async_checkpoint import AsyncCheckpointer
from gnomon.train.checkpoint import Checkpointer
from gnomon.train.retention import Retention
from gnomon.units import format_bytes

MIB = 2**20
STATE_BYTES = 192 * MIB
LAYERS = 16
LIMIT = 0.15
COMMAND = "python benchmarks/async_checkpoint.py --write"


def make_state() -> tuple[SingleStrategy, nn.Module, torch.optim.Optimizer]:
    """Return a model that has taken a step, with its optimizer: three numbers of 4 bytes per weight."""
    strategy = SingleStrategy(RankEnvironment.detect(), torch.device("cpu"))
    width = int((STATE_BYTES / 12 / LAYERS) ** 0.5)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.ones(1, width)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return strategy, model, optimizer


def measure(rounds: int, folder: Path) -> tuple[dict[str, list[float]], int]:
    """Return the seconds of each way to save, and the size of the state in bytes."""
    torch.set_num_threads(1)
    strategy, model, optimizer = make_state()
    retention = Retention(newest=1)
    sync = Checkpointer(folder / "sync", strategy, retention, {})
    threaded = AsyncCheckpointer(folder / "async", strategy, retention, {})
    times: dict[str, list[float]] = {"at once": [], "thread, first": [], "thread, later": [], "thread, whole": []}
    sync.save(0, strategy.state(model, optimizer), {})  # imports, and the first pages of the disk
    for step in range(1, rounds + 2):
        start = time.perf_counter()
        sync.save(step, strategy.state(model, optimizer), {})
        if step > 1:
            times["at once"].append(time.perf_counter() - start)
        start = time.perf_counter()
        threaded.save(step, strategy.state(model, optimizer), {})
        times["thread, later" if step > 1 else "thread, first"].append(time.perf_counter() - start)
        threaded.wait()
        if step > 1:
            times["thread, whole"].append(time.perf_counter() - start)
    threaded.close()
    state = strategy.state(model, optimizer)
    tensors = [*state["model"].values(), *(t for part in state["optimizer"].values() for t in part.values())]
    return times, sum(tensor.nbytes for tensor in tensors)


def render(times: dict[str, list[float]], size_bytes: int, rounds: int) -> str:
    """Return the page."""
    versions = package_versions()
    base = statistics.median(times["at once"])
    rows = [
        f"| {name} | {min(values):.3f} | {statistics.median(values):.3f} | {statistics.median(values) / base:.3f} | "
        f"{LIMIT if name == 'thread, later' else ''} |"
        for name, values in times.items()
    ]
    return "\n".join(
        [
            "# Asynchronous checkpoints",
            "",
            f"Seconds for which a checkpoint of {format_bytes(size_bytes)} (weights, AdamW state) holds up the loop;",
            f"{rounds} rounds, in which both ways take turns. The first save by the thread also allocates the buffers",
            "that the later ones use again. The last line is the time until the files are complete, during which",
            "training goes on. One CPU thread, because a copy by two waits for both where other programs run.",
            "",
            f"- Hardware: {cpu_model()}",
            f"- Versions: gnomon {versions['gnomon']}, PyTorch {versions['torch']}",
            f"- Command: `{COMMAND}`",
            "",
            "| written | min [s] | median [s] | ratio of medians | limit |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write async_checkpoint.md beside this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gnomon-bench-") as folder:
        page = render(*measure(arguments.rounds, Path(folder)), arguments.rounds)
    print(page)
    if arguments.write:
        Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
