"""`measure`: join the metrics of a run with a profile of its steps into a `Measurement`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gnomon.errors import ReportError, RunDirectoryError
from gnomon.launch.local import RankJob, run_ranks
from gnomon.plan.flops import model_flops
from gnomon.profile.measurement import Measurement, OperatorMeasurement
from gnomon.profile.rank_profile import RankProfile, summary_path
from gnomon.profile.step_profile import scale_factor, time_breakdown
from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.config import GPTTrainingConfig
from gnomon.train.run_files import SETTINGS_FILE

WORKER = "gnomon.profile.profile_worker"
WARMUP_STEPS = 3
MIN_STEADY_STEPS = 5
LOSS_SHARE = 0.05


@dataclass(frozen=True, kw_only=True)
class SteadySteps:
    """Step times (s, one per step) after the warm-up, and the mean loss of the first and last twentieth of rows."""

    step_times_s: tuple[float, ...]
    loss_first: float
    loss_last: float

    def quantile_s(self, share: float) -> float:
        """Return the step time that `share` of the steps stay below (linear interpolation)."""
        ordered = sorted(self.step_times_s)
        position = share * (len(ordered) - 1)
        low = int(position)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def measure(run: RunDirectory, threads_per_rank: int | None = None) -> Measurement:
    """Profile a few steps with the run's own settings and ranks, join them with its metrics, and save the result.

    Neither the checkpoints nor metrics.jsonl are touched. `threads_per_rank` is what the run was started with;
    None: the cores of the machine shared by its ranks. Raises RunDirectoryError without training.json, ReportError
    for a run that is too short, and the errors of `run_ranks` when the profiled steps fail.
    """
    settings = read_settings(run)
    steady = steady_steps(run)
    ranks = settings.layout.num_ranks
    job = RankJob(
        module=WORKER,
        arguments=(str(run.path / SETTINGS_FILE), str(run.traces)),
        log_dir=run.logs / "profile",
        ranks=ranks,
        threads_per_rank=threads_per_rank,
    )
    run_ranks(job)
    profiles = [RankProfile.load(summary_path(run.traces, rank)) for rank in range(ranks)]
    measurement = join(settings, steady, profiles)
    measurement.save(run.measurement)
    return measurement


def join(settings: GPTTrainingConfig, steady: SteadySteps, profiles: Sequence[RankProfile]) -> Measurement:
    """Return the measurement of a run: rank 0's times, the memory of the rank with the highest peak."""
    step_time_s = statistics.median(steady.step_times_s)
    times, largest = profiles[0], max(profiles, key=lambda profile: profile.memory.total_bytes)
    flops = model_flops(settings.model, settings.workload)
    peak = settings.peak_flops
    return Measurement(
        model=settings.model,
        layout=settings.layout,
        workload=settings.workload,
        device=times.device,
        num_steps=len(steady.step_times_s),
        step_time_s=step_time_s,
        step_time_p10_s=steady.quantile_s(0.1),
        step_time_p90_s=steady.quantile_s(0.9),
        tokens_per_s=settings.workload.tokens_per_step / step_time_s,
        model_flops=flops,
        mfu=None if peak is None else flops / step_time_s / (peak * settings.layout.num_ranks),
        time=time_breakdown(times.terms, step_time_s),
        memory=largest.memory,
        peak_memory_bytes=largest.memory.total_bytes,
        peak_tensor_bytes=largest.peak_tensor_bytes,
        num_profiled_steps=times.num_profiled_steps,
        profiled_step_time_s=times.profiled_step_time_s,
        operators=_scaled(times.operators, scale_factor(times.terms, step_time_s)),
        loss_first=steady.loss_first,
        loss_last=steady.loss_last,
        versions=times.versions,
    )


def read_settings(run: RunDirectory) -> GPTTrainingConfig:
    """Return the settings of the run; raise RunDirectoryError without training.json, SpecError if it is damaged."""
    path = run.path / SETTINGS_FILE
    if not path.is_file():
        raise RunDirectoryError(
            f"'{run.path}' has no {SETTINGS_FILE}, so the profiler does not know what to run. "
            "Give the folder of a run that gnomon trained."
        )
    return GPTTrainingConfig.load(path)


def steady_steps(run: RunDirectory) -> SteadySteps:
    """Return the steps after the warm-up; raise ReportError when fewer than `MIN_STEADY_STEPS` are left.

    A row holds the mean over the steps since the row before it, so it counts as many times. A row that covers one of
    the first `WARMUP_STEPS` steps is left out, because they allocate memory and fill caches.
    """
    rows = [row for row in run.read_metrics() if "loss" in row]
    if not rows:
        raise ReportError(
            f"'{run.metrics}' has no training steps: the run did not log any. Train with log_every=1 and "
            f"at least {WARMUP_STEPS + MIN_STEADY_STEPS} steps, then measure."
        )
    times = tuple(row["step_time_s"] for row, count in _with_counts(rows) for _ in range(count))
    if len(times) < MIN_STEADY_STEPS:
        raise ReportError(
            f"'{run.metrics}' has {len(times)} steps after the warm-up ({rows[-1]['step']} in all); a measurement "
            f"needs {MIN_STEADY_STEPS}. Raise num_steps, or lower log_every so that the first row ends earlier."
        )
    share = max(1, round(LOSS_SHARE * len(rows)))
    losses = [row["loss"] for row in rows]
    return SteadySteps(
        step_times_s=times, loss_first=statistics.fmean(losses[:share]), loss_last=statistics.fmean(losses[-share:])
    )


def _with_counts(rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], int]]:
    """Return the rows that begin after the warm-up, each with the number of steps that it covers."""
    starts = [0, *(row["step"] for row in rows)]
    pairs = zip(rows, starts, strict=False)
    return [(row, row["step"] - start) for row, start in pairs if start >= WARMUP_STEPS]


def _scaled(operators: Sequence[OperatorMeasurement], factor: float) -> tuple[OperatorMeasurement, ...]:
    return tuple(operator.model_copy(update={"time_s": operator.time_s * factor}) for operator in operators)
