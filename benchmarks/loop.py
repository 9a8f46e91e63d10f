"""Predicted against measured: train configurations that were not used to calibrate, and write benchmarks/loop.md.

    python benchmarks/loop.py [--work FOLDER] [--steps-s SECONDS] [--only NAME]

Finished configurations in FOLDER are kept, so an interrupted benchmark goes on where it stopped. Delete FOLDER (or
name another) to measure afresh. The hardware profile is measured first, into FOLDER/hardware.yaml.
"""

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from gnomon.launch.local import RankJob, run_ranks
from gnomon.plan.estimate import Estimate
from gnomon.plan.planner import plan
from gnomon.profile.calibrate import calibrate
from gnomon.profile.measure import measure
from gnomon.profile.measurement import Measurement
from gnomon.runtime.run_directory import RunDirectory
from gnomon.runtime.versions import describe_environment
from gnomon.spec import TIME_TERMS, HardwareProfile, Layout, ModelSpec, Workload
from gnomon.train.config import GPTTrainingConfig

LLAMA = {
    "norm": "rmsnorm",
    "position": "rope",
    "gated_mlp": True,
    "activation": "silu",
    "tied_embeddings": False,
    "num_kv_heads": 2,
}


@dataclass(frozen=True)
class Case:
    """One configuration; `batch` is global."""

    name: str
    layers: int
    width: int
    seq_len: int
    batch: int
    precision: str = "fp32"
    ranks: int = 1
    micro_batch: int | None = None
    extra: dict = field(default_factory=dict)

    def model(self) -> ModelSpec:
        return ModelSpec(
            name=self.name,
            num_layers=self.layers,
            hidden_size=self.width,
            num_heads=max(1, self.width // 64),
            vocab_size=256,
            max_seq_len=self.seq_len,
            **self.extra,
        )

    def workload(self) -> Workload:
        return Workload(
            seq_len=self.seq_len,
            global_batch=self.batch,
            micro_batch=self.micro_batch or self.batch // self.ranks,
            precision=self.precision,
        )


CASES = (
    Case("small", 2, 128, 128, 16),
    Case("deep and narrow", 8, 192, 64, 32),
    Case("middle", 4, 256, 256, 8),
    Case("wide", 3, 768, 128, 4),
    Case("large", 6, 384, 512, 4),
    Case("long sequence", 2, 256, 1024, 2),
    Case("accumulation", 4, 256, 128, 16, micro_batch=4),
    Case("llama style", 4, 256, 256, 8, extra=LLAMA),
    Case("small, bf16", 2, 128, 128, 16, "bf16"),
    Case("middle, bf16", 4, 256, 256, 8, "bf16"),
    Case("large, bf16", 6, 384, 512, 4, "bf16"),
    Case("wide, bf16", 6, 512, 128, 8, "bf16"),
    Case("middle, 2 ranks", 4, 256, 256, 8, ranks=2),
    Case("wide, 2 ranks", 3, 512, 128, 16, ranks=2),
    Case("middle, bf16, 2 ranks", 4, 256, 256, 8, "bf16", ranks=2),
    Case("large, bf16, 2 ranks", 5, 384, 256, 8, "bf16", ranks=2),
)


def main() -> None:
    arguments = _arguments()
    work = Path(arguments.work)
    profile = _profile(work, arguments.device)
    cases = [case for case in CASES if arguments.only in (None, case.name) and case.ranks in profile.shares]
    results = []
    for case in cases:
        results.append((case, *_result(case, profile, work, arguments.steps_s, arguments.device)))
        print(_console_row(*results[-1]), flush=True)
    if arguments.only is None:
        Path(arguments.output).write_text(render(profile, results), encoding="utf-8")
        print(f"written: {arguments.output}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="runs/loop", help="folder of hardware profile and runs")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".md")))
    parser.add_argument("--steps-s", type=float, default=12.0, help="seconds of steady steps per configuration")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", help="run the configuration of this name and write no table")
    return parser.parse_args()


def _profile(work: Path, device: str) -> HardwareProfile:
    path = work / "hardware.yaml"
    if path.is_file():
        return HardwareProfile.load(path)
    profile = calibrate(device=device, budget_s=90.0)
    profile.save(path)
    return profile


def _result(
    case: Case, profile: HardwareProfile, work: Path, steps_s: float, device: str
) -> tuple[Estimate, Measurement]:
    layout = Layout(dp=case.ranks)
    cluster = profile.cluster(case.ranks)
    estimate = plan(case.model(), cluster, layout, case.workload())
    path = work / case.name.replace(",", "").replace(" ", "-")
    run = RunDirectory(path)
    if not run.measurement.is_file():
        config = GPTTrainingConfig(
            run_dir=str(path),
            num_steps=max(12, min(400, round(steps_s / estimate.step_time_s))),
            log_every=1,
            device=device,
            progress=False,
            model=case.model(),
            layout=layout,
            workload=case.workload(),
            peak_flops=cluster.accelerator.peak_flops.get(case.precision),
        )
        run = RunDirectory.create(path, config.to_yaml(), describe_environment())
        training = config.save(run.path / "training.json")
        run_ranks(
            RankJob(
                module="gnomon.train.worker", arguments=(str(training),), ranks=case.ranks, log_dir=run.logs / "train"
            )
        )
        measure(run)
    return estimate, Measurement.load(run.measurement)


def _error(predicted: float, measured: float) -> float:
    return (predicted - measured) / measured


def _errors(estimate: Estimate, measurement: Measurement) -> tuple[float, float, float]:
    return (
        _error(estimate.step_time_s, measurement.step_time_s),
        _error(estimate.memory.total_bytes, measurement.peak_memory_bytes),
        _error(estimate.memory.tensor_bytes, measurement.peak_tensor_bytes),
    )


def _console_row(case: Case, estimate: Estimate, measurement: Measurement) -> str:
    time, memory, tensors = _errors(estimate, measurement)
    terms = " ".join(
        f"{term.removesuffix('_s')} {1e3 * estimate.time.as_dict()[term]:.1f}/{1e3 * value:.1f}"
        for term, value in measurement.time.as_dict().items()
    )
    return (
        f"{case.name:24s} predicted {1e3 * estimate.step_time_s:8.1f} ms, measured {1e3 * measurement.step_time_s:8.1f}"
        f" ms {100 * time:+6.1f}%  memory {100 * memory:+5.1f}%  tensors {100 * tensors:+5.1f}%\n    {terms}"
    )


def render(profile: HardwareProfile, results: list[tuple[Case, Estimate, Measurement]]) -> str:
    """Return the Markdown page."""
    errors = [_errors(estimate, measurement) for _, estimate, measurement in results]
    time, memory, tensors = ([abs(e[i]) for e in errors] for i in range(3))
    lines = [
        "# Predicted against measured",
        "",
        f"{profile.accelerator.name}, {profile.versions.get('cores', '?')} cores; "
        + ", ".join(f"{name} {version}" for name, version in profile.versions.items() if name != "cores")
        + ".",
        f"Calibrated {profile.created} in {profile.duration_s:.0f} s; no configuration below took part in that.",
        "",
        "Command: `python benchmarks/loop.py`. Step time is the median of the steady steps; memory is the resident",
        "peak of a rank; tensors is its peak without framework and allocator.",
        "",
        "| | median abs. error | worst abs. error | bias |",
        "|---|---|---|---|",
        *(
            f"| {name} | {100 * statistics.median(values):.1f}% | {100 * max(values):.1f}% "
            f"| {100 * statistics.fmean(e[i] for e in errors):+.1f}% |"
            for i, (name, values) in enumerate(
                (("step time", time), ("peak memory", memory), ("peak tensors", tensors))
            )
        ),
        "",
        "| configuration | layers x width | seq x batch | precision | ranks | predicted ms | measured ms (p10-p90) "
        "| error | memory MiB pred. / meas. | error | tensors error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (case, estimate, measurement), (t, m, x) in zip(results, errors, strict=True):
        lines.append(
            f"| {case.name} | {case.layers} x {case.width} | {case.seq_len} x {case.batch} | {case.precision} "
            f"| {case.ranks} | {1e3 * estimate.step_time_s:.1f} | {1e3 * measurement.step_time_s:.1f} "
            f"({1e3 * measurement.step_time_p10_s:.1f}-{1e3 * measurement.step_time_p90_s:.1f}) | {100 * t:+.1f}% "
            f"| {estimate.memory.total_bytes / 2**20:.0f} / {measurement.peak_memory_bytes / 2**20:.0f} "
            f"| {100 * m:+.1f}% | {100 * x:+.1f}% |"
        )
    lines += ["", "## Where the errors are", "", "Predicted / measured milliseconds of each term.", ""]
    lines += ["| configuration | " + " | ".join(TIME_TERMS.values()) + " |", "|---" * (len(TIME_TERMS) + 1) + "|"]
    for case, estimate, measurement in results:
        measured = measurement.time.as_dict()
        cells = [f"{1e3 * value:.1f} / {1e3 * measured[term]:.1f}" for term, value in estimate.time.as_dict().items()]
        lines.append(f"| {case.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n" + _notes()


def _notes() -> str:
    notes = Path(__file__).with_name("loop.notes.md")
    return "\n" + notes.read_text(encoding="utf-8") if notes.is_file() else ""


if __name__ == "__main__":
    main()
