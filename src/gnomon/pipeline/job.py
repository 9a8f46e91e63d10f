"""Jobs: a configuration that was composed, and the pipeline in it, run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from gnomon.component import Component
from gnomon.config import compose, expand_sweep, instantiate, select, to_yaml
from gnomon.errors import ConfigError, PipelineError, did_you_mean
from gnomon.pipeline.pipeline import Pipeline
from gnomon.pipeline.run import resolved_config

PIPE_KEYS = ("training_pipeline", "pipeline")


@dataclass(frozen=True)
class Job:
    """One configuration to run, and the overrides that made it."""

    config: DictConfig
    overrides: list[str]


@dataclass(frozen=True)
class JobResult:
    """What a job returned: the output of its last step and the seconds of each step."""

    output: Any
    overrides: list[str]
    run_dir: str | None
    timings: dict[str, float] = field(default_factory=dict)


def compose_jobs(
    config_path: Path | None, config_name: str, overrides: Sequence[str], multirun: bool = False
) -> list[Job]:
    """Return the jobs of a configuration: one, or with `multirun` one per combination of the sweeps in `overrides`.

    All are composed before any runs. In a multirun each job's `run_dir` ends in -0, -1, ... Raises ConfigError.
    """
    moment = datetime.now().astimezone()
    combinations = expand_sweep(overrides) if multirun else [list(overrides)]
    jobs = [Job(compose(config_path, config_name, each, moment), each) for each in combinations]
    if multirun:
        for index, job in enumerate(jobs):
            _append_to_run_dir(job.config, f"-{index}")
    return jobs


def run_job(job: Job, pipe_key: str | None = None, steps: str | None = None, trusted: Sequence[str] = ()) -> JobResult:
    """Build the pipeline of a job and run it, or only the chosen `steps`; raise ConfigError or PipelineError.

    The steps find the resolved configuration in `gnomon.pipeline.run.config_yaml`.
    """
    component = build(job.config, pipe_key, trusted)
    if steps is not None:
        if not isinstance(component, Pipeline):
            raise PipelineError(f"--steps {steps} needs a Pipeline, but the configuration has a {component.name}.")
        component = component.select(steps)
    with resolved_config(to_yaml(job.config)):
        output = component.execute()
    run_dir = select(job.config, "run_dir")
    timings = component.timings if isinstance(component, Pipeline) else {}
    return JobResult(output, job.overrides, None if run_dir is None else str(run_dir), timings)


def build(config: DictConfig, pipe_key: str | None = None, trusted: Sequence[str] = ()) -> Component:
    """Return the component under `pipe_key` (default: training_pipeline or pipeline); raise ConfigError without one."""
    key = pipe_key or next((key for key in PIPE_KEYS if key in config), None)
    if key is None:
        raise ConfigError(
            f"The configuration has no pipeline: neither {' nor '.join(PIPE_KEYS)} is a key of it. "
            f"Name the key with --pipe-key; the keys are {', '.join(map(str, config))}."
        )
    node = select(config, key)
    if node is None:
        raise ConfigError(f"The configuration has no '{key}' (--pipe-key). {did_you_mean(key, map(str, config))}")
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise ConfigError(f"'{key}' has no _target_. A pipeline starts with _target_: gnomon.pipeline.Pipeline.")
    component = instantiate(node, trusted)
    if not isinstance(component, Component):
        raise PipelineError(f"'{key}' makes a {type(component).__name__}, which is not a component; it cannot be run.")
    return component


def _append_to_run_dir(config: DictConfig, suffix: str) -> None:
    run_dir = select(config, "run_dir")
    if run_dir is not None:
        with open_dict(config):
            config.run_dir = f"{run_dir}{suffix}"
