"""The step that trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gnomon.component import Component
from gnomon.errors import ConfigError, InterruptedRunError, LayoutError, RankFailedError, did_you_mean
from gnomon.launch.local import check_port
from gnomon.pipeline.run import open_run, refuse_existing, require
from gnomon.plan.estimate import Estimate
from gnomon.runtime.run_directory import RunDirectory
from gnomon.units import format_bytes

WORKER = "gnomon.train.worker"
PLANNED = {"run_dir", "model", "layout", "workload", "peak_flops", "accumulation", "precision"}


class Train(Component):
    """Trains the model of an estimate, with its layout and workload, on the ranks of this machine.

    `training` holds the other settings of `GPTTrainingConfig`, such as num_steps and learning_rate; they are
    checked at once, so that a mistake does not show only after the steps before. `port` is where several ranks meet;
    None: a free one.
    """

    def __init__(self, run_dir: str, training: Mapping[str, Any], port: int | None = None) -> None:
        self.run_dir = run_dir
        self.port = port
        self.training = dict(training)
        _check_settings(self.training, run_dir)
        if port is not None:
            check_port(port)

    def execute(self, estimate: Estimate | None = None) -> RunDirectory:
        """Return the run directory after training; without input, read its estimate.json.

        Writes training.json, then starts the ranks. Raises RunDirectoryError if the run was trained already and
        `training` does not set resume, SpecError for a wrong setting, and the errors of `run_ranks`.
        """
        from gnomon.launch.local import RankJob, run_ranks
        from gnomon.train.config import GPTTrainingConfig
        from gnomon.train.run_files import refuse_locked

        run = open_run(self.run_dir, self.name)
        refuse_locked(run)
        if not self.training.get("resume", False):
            refuse_existing(run.metrics, self.name)
            refuse_existing(run.checkpoints, self.name)
        if estimate is None:
            estimate = Estimate.load(require(run.estimate, self.name))
        _refuse_what_does_not_fit(estimate)
        settings = {**self.training, **_planned_settings(estimate), "run_dir": self.run_dir}
        checked = GPTTrainingConfig.from_mapping(settings, "training")
        path = checked.save(run.logs / "training.json")  # the ranks put it in the run once they have accepted it
        ranks = checked.layout.num_ranks
        try:
            run_ranks(RankJob(module=WORKER, arguments=(str(path),), log_dir=run.logs, ranks=ranks, port=self.port))
        except (InterruptedRunError, RankFailedError) as error:
            if run.checkpoints.exists():
                error.args = (f"{error} In a pipeline: run_dir={self.run_dir} training.resume=true --steps train:",)
            raise
        return run


def _refuse_what_does_not_fit(estimate: Estimate) -> None:
    capacity = estimate.cluster.accelerator.memory_bytes
    if estimate.fits is False and capacity is not None:
        raise LayoutError(
            f"'{estimate.model.name}' needs about {format_bytes(estimate.memory.total_bytes)} per rank and "
            f"'{estimate.cluster.name}' has {format_bytes(capacity)}. Choose a smaller model, micro_batch or seq_len."
        )


def _planned_settings(estimate: Estimate) -> dict[str, Any]:
    """Return the settings that the estimate was made for, so that prediction and run describe the same work."""
    return {
        "model": estimate.model.to_mapping(),
        "layout": estimate.layout.to_mapping(),
        "workload": estimate.workload.to_mapping(),
        "peak_flops": estimate.cluster.accelerator.peak(estimate.workload.precision),
    }


def _check_settings(training: dict[str, Any], run_dir: str) -> None:
    """Raise ConfigError or SpecError for settings that are unknown, wrong, or for the planner to decide."""
    from gnomon.train.config import GPTTrainingConfig, TrainingConfig

    for key in training:
        if key in PLANNED:
            raise ConfigError(f"training.{key} follows from the estimate. Set it for the step that plans instead.")
        if key not in GPTTrainingConfig.model_fields:
            free = set(GPTTrainingConfig.model_fields) - PLANNED
            raise ConfigError(f"training has no setting '{key}'. {did_you_mean(key, free)}")
    common = {key: value for key, value in training.items() if key in TrainingConfig.model_fields}
    TrainingConfig.from_mapping({**common, "run_dir": run_dir}, "training")
