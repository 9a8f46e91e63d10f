"""Cost of gnomon's training loop against a raw PyTorch loop, on a model so small that the loop shows.

    python benchmarks/loop_overhead.py --write

A 64-64-10 perceptron, batch 32, AdamW, one CPU thread. The variants take turns within each round of one process; the
time is CPU time of the process, and `--write` puts the table into loop_overhead.md beside this file.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from gnomon.runtime.signals import StopFlag
from gnomon.runtime.versions import cpu_model, package_versions
from gnomon.track.jsonl import JsonlTracker
from gnomon.train.agreement import StopAgreement
from gnomon.train.config import TrainingConfig
from gnomon.train.trainer import Trainer

BATCHES = 100
LIMITS = {"gnomon, everything off": 1.10, "gnomon, metrics every 10 steps": 1.15}
COMMAND = "python benchmarks/loop_overhead.py --write"


def make_batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(32, 64, generator=generator), torch.randint(10, (32,), generator=generator))
        for _ in range(BATCHES)
    ]


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def make_loader() -> DataLoader:
    return DataLoader(make_batches(), batch_size=None)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


class PerceptronTrainer(Trainer):
    def create_model(self):
        return make_model()

    def create_optimizer(self):
        return make_optimizer(self.module)

    def create_loader(self):
        return make_loader()

    def training_step(self, batch):
        inputs, targets = batch
        return F.cross_entropy(self.model(inputs), targets)


def raw_loop(num_steps: int) -> Callable[[], None]:
    model, loader = make_model(), make_loader()
    optimizer = make_optimizer(model)

    def run() -> None:
        step = 0
        while step < num_steps:
            for inputs, targets in loader:
                loss = F.cross_entropy(model(inputs), targets)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                if step == num_steps:
                    break

    return run


def gnomon_loop(num_steps: int, folder: Path, log_every: int) -> Callable[[], None]:
    config = TrainingConfig(
        run_dir=str(folder), num_steps=num_steps, log_every=log_every, grad_clip=None, device="cpu", progress=False
    )
    trainer = PerceptronTrainer(config)
    trainer.setup()
    if log_every:
        trainer.trackers = [JsonlTracker(folder / f"metrics-{time.perf_counter_ns()}.jsonl")]
    stop = StopAgreement(trainer.strategy, StopFlag(), 0)
    return lambda: trainer.train(stop)


def measure(rounds: int, num_steps: int) -> dict[str, list[float]]:
    """Return CPU microseconds per step of every round, by variant."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants = {
            "raw PyTorch with DataLoader": lambda: raw_loop(num_steps),
            "gnomon, everything off": lambda: gnomon_loop(num_steps, folder, log_every=0),
            "gnomon, metrics every 10 steps": lambda: gnomon_loop(num_steps, folder, log_every=10),
        }
        order = list(variants.items())
        for number in range(rounds + 1):
            if number == 1:
                gc.freeze()  # what the imports left need not be looked at again
            for label, build in order[number % 3 :] + order[: number % 3]:
                run = build()
                gc.collect()
                start = time.process_time()
                run()
                if number > 0:  # round 0 warms up
                    times.setdefault(label, []).append((time.process_time() - start) / num_steps * 1e6)
    return {label: times[label] for label in variants}


def render(times: dict[str, list[float]], rounds: int, num_steps: int) -> str:
    """Return the report as Markdown."""
    base = next(iter(times.values()))
    versions = package_versions()
    lines = [
        "# Loop overhead",
        "",
        "What gnomon's training loop costs on a model so small that the loop shows: a 64-64-10 perceptron, batch 32,",
        "AdamW (fused, the same flags everywhere), one CPU thread. All loops read the same pre-batched tensors through",
        f"`DataLoader(batch_size=None)`. {rounds} rounds of {num_steps} steps, in which the variants take turns within",
        "one process; CPU time of the process, in microseconds per step. The ratio of minima holds against the limit;",
        "the median over rounds of the ratio within a round shows how steady the machine was.",
        "",
        f"- Hardware: {cpu_model()}",
        f"- Versions: gnomon {versions.get('gnomon')}, PyTorch {torch.__version__}",
        f"- Command: `{COMMAND}`",
        "",
        "| loop | min | median | ratio of minima | median of ratios | limit |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for label, values in times.items():
        low, middle = min(values), statistics.median(values)
        limit = f"{LIMITS[label]:.2f}" if label in LIMITS else ""
        lines.append(
            f"| {label} | {low:.0f} | {middle:.0f} | {low / min(base):.3f} | "
            f"{statistics.median(v / b for v, b in zip(values, base, strict=True)):.3f} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="put the table into loop_overhead.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio of minima exceeds its limit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    times = measure(arguments.rounds, arguments.steps)
    text = render(times, arguments.rounds, arguments.steps)
    print(text)
    if arguments.write:
        Path(__file__).with_suffix(".md").write_text(text, encoding="utf-8")
    base = min(next(iter(times.values())))
    slow = [label for label, limit in LIMITS.items() if min(times[label]) / base > limit]
    if arguments.check and slow:
        raise SystemExit(f"Over the limit: {', '.join(slow)}")


if __name__ == "__main__":
    main()
