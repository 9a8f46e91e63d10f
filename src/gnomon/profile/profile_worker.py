"""`python -m gnomon.profile.profile_worker CONFIG.json FOLDER`: one rank of a profiled run; torchrun starts several.

It trains a fresh model for a few steps: first unprofiled for the resident memory, then under the profiler for the
times, then once more with memory events for the tensors alive at the peak. It writes to FOLDER only.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from gnomon.errors import ConfigError
from gnomon.launch.rank_errors import report_rank_error
from gnomon.profile.measurement import OperatorMeasurement
from gnomon.profile.operator_names import STEP_SCOPE
from gnomon.profile.profiled_trainer import ProfiledTrainer
from gnomon.profile.rank_profile import RankProfile, summary_path, trace_path
from gnomon.profile.step_profile import StepProfile, attribute_steps, typical_step
from gnomon.profile.tensor_memory import peak_growth_bytes, peak_resident_bytes
from gnomon.profile.trace_events import cut_trace, named, read_trace, trace_events, write_trace
from gnomon.runtime.devices import device_name
from gnomon.runtime.versions import package_versions
from gnomon.train.config import GPTTrainingConfig

UNPROFILED_STEPS = 3
PROFILER_WARMUP_STEPS = 1
PROFILED_STEPS = 4
STEPS_IN_TRACE = 2
MEMORY_STEPS = 2


def main() -> None:
    """Profile what the configuration file on the command line says; raise SystemExit when that fails."""
    with report_rank_error():
        if len(sys.argv) != 3:
            raise ConfigError("Two arguments are needed: python -m gnomon.profile.profile_worker CONFIG.json FOLDER")
        profile_rank(GPTTrainingConfig.load(sys.argv[1]), Path(sys.argv[2]))


def profile_rank(config: GPTTrainingConfig, folder: Path) -> RankProfile:
    """Run and profile a few steps on this rank, write trace and summary to `folder`, and return the summary."""
    steps = UNPROFILED_STEPS + PROFILER_WARMUP_STEPS + PROFILED_STEPS + MEMORY_STEPS
    trainer = ProfiledTrainer(config.model_copy(update={"num_steps": config.num_steps + steps}))
    try:
        trainer.setup()
        return _profile(trainer, folder)
    finally:
        trainer.teardown()


def _profile(trainer: ProfiledTrainer, folder: Path) -> RankProfile:
    for _ in range(UNPROFILED_STEPS):
        trainer.run_step()
    peak_memory_bytes, peak_tensor_bytes = _peak_bytes(trainer.device)
    rank = trainer.strategy.environment.rank
    step = _profile_times(trainer, trace_path(folder, rank))
    if trainer.device.type == "cpu":
        peak_tensor_bytes = _profile_tensors(trainer)
    summary = RankProfile(
        rank=rank,
        device=device_name(trainer.device),
        num_profiled_steps=PROFILED_STEPS,
        profiled_step_time_s=step.step_time_s,
        terms=step.terms,
        operators=_operators(step),
        weights_bytes=trainer.weights_bytes,
        gradients_bytes=trainer.gradients_bytes,
        optimizer_bytes=trainer.optimizer_bytes,
        communication_bytes=trainer.communication_bytes,
        peak_tensor_bytes=peak_tensor_bytes,
        baseline_memory_bytes=trainer.baseline_memory_bytes,
        peak_memory_bytes=peak_memory_bytes,
        versions=package_versions(),
    )
    summary.save(summary_path(folder, rank))
    return summary


def _peak_bytes(device: torch.device) -> tuple[float, float]:
    """Return (peak memory, peak of tensors) of the steps so far; a CPU does not count its tensors (0)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes(), 0


def _profile_times(trainer: ProfiledTrainer, path: Path) -> StepProfile:
    """Profile the times of `PROFILED_STEPS` steps, keep the trace of the first ones, and return the typical step."""
    activities = [ProfilerActivity.CPU]
    if trainer.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    plan = schedule(wait=0, warmup=PROFILER_WARMUP_STEPS, active=PROFILED_STEPS, repeat=1)
    document: dict[str, Any] = {}
    with profile(
        activities=activities, schedule=plan, on_trace_ready=lambda profiler: document.update(_export(profiler))
    ) as profiler:
        for _ in range(PROFILER_WARMUP_STEPS + PROFILED_STEPS):
            trainer.run_step()
            profiler.step()
    events = trace_events(document)
    shown = named(events, STEP_SCOPE)[:STEPS_IN_TRACE]
    window = (shown[0].start_ns, shown[-1].end_ns)
    write_trace(path, {**cut_trace(document, window), "traceName": path.name})
    return typical_step(attribute_steps(events))


def _profile_tensors(trainer: ProfiledTrainer) -> float:
    """Return the bytes of the tensors alive at the peak of a step on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(MEMORY_STEPS - 1):
            trainer.run_step()
        live_bytes = trainer.live_bytes()
        trainer.run_step()
    return live_bytes + peak_growth_bytes(_export(profiler))


def _export(profiler: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return read_trace(path)


def _operators(step: StepProfile) -> tuple[OperatorMeasurement, ...]:
    by_time = sorted(step.operators.items(), key=lambda item: -item[1][1])
    return tuple(
        OperatorMeasurement(name=name, term=term, calls=calls, time_s=seconds)
        for (name, term), (calls, seconds) in by_time
    )


if __name__ == "__main__":
    main()
