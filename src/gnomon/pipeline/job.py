"""Jobs: a configuration that was composed, and the pipeline in it, run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, open_dict

from gnomon.component import Component
from gnomon.config import compose, expand_sweep, instantiate, is_url, locate_config, select, to_plain, to_yaml
from gnomon.config.plugins import check_plugins, wanted_plugins
from gnomon.errors import ConfigError, PipelineError, did_you_mean
from gnomon.pipeline._failure import explained_failure
from gnomon.pipeline.pipeline import Pipeline
from gnomon.runtime.resolved import resolved_config

PIPE_KEYS = ("training_pipeline", "pipeline")


@dataclass(frozen=True)
class Job:
    """One configuration to run, and the overrides that made it."""

    config: DictConfig
    overrides: list[str]


@dataclass(frozen=True)
class JobResult:
    """What a job returned: the output of its last step, the seconds of each step, and which came from the cache."""

    output: Any
    overrides: list[str]
    run_dir: str | None
    timings: dict[str, float] = field(default_factory=dict)
    cached: list[str] = field(default_factory=list)


def compose_jobs(
    config_path: Path | None, config_name: str, overrides: Sequence[str], multirun: bool = False
) -> list[Job]:
    """Return the jobs of a configuration: one, or with `multirun` one per combination of the sweeps in `overrides`.

    Where `config_name` is a web address, the file there is fetched once and overridden like any other. All are
    composed before any runs. In a multirun each job's `run_dir` ends in -0, -1, ... Raises ConfigError.
    """
    moment = datetime.now().astimezone()
    if is_url(config_name):
        config_path, config_name = locate_config(config_name)
    combinations = expand_sweep(overrides) if multirun else [list(overrides)]
    jobs = [Job(compose(config_path, config_name, each, moment), each) for each in combinations]
    if multirun:
        for index, job in enumerate(jobs):
            _append_to_run_dir(job.config, f"-{index}")
    return jobs


def run_job(job: Job, pipe_key: str | None = None, steps: str | None = None, trusted: Sequence[str] = ()) -> JobResult:
    """Build the pipeline of a job and run it, or only the chosen `steps`.

    Raises ConfigError, PipelineError, any other GnomonError of a step, and StepFailedError where a step raised anything
    else.

    Without `pipe_key` and `steps`, the configuration's own keys `pipe_key` and `pipe_steps` count. The steps find the
    resolved configuration in `gnomon.runtime.resolved.config_yaml`.
    """
    component = build(job.config, pipe_key, trusted)
    chosen = _steps_of(job.config) if steps is None else steps
    if chosen is not None:
        if not isinstance(component, Pipeline):
            raise PipelineError(
                f"Choosing steps ({chosen}) needs a Pipeline, but the configuration has a {component.name}."
            )
        component = component.select(chosen)
    with resolved_config(to_yaml(job.config)), explained_failure(component):
        output = component.execute()
    run_dir = select(job.config, "run_dir")
    timings, cached = (component.timings, component.cached) if isinstance(component, Pipeline) else ({}, [])
    return JobResult(output, job.overrides, None if run_dir is None else str(run_dir), timings, cached)


def _steps_of(config: DictConfig) -> str | list[str | int] | None:
    """Return the configuration's `pipe_steps`: names, positions from 0, or text as for --steps."""
    node = select(config, "pipe_steps")
    steps = to_plain(node) if isinstance(node, ListConfig) else node
    if steps is None or isinstance(steps, str):
        return steps
    if not isinstance(steps, list) or not all(type(step) in (int, str) for step in steps):
        raise ConfigError(f"pipe_steps is {steps!r}; give a list of names or numbers, such as [load, train] or [0, 1].")
    return steps


def build(config: DictConfig, pipe_key: str | None = None, trusted: Sequence[str] = ()) -> Component:
    """Return the component under `pipe_key`; raise ConfigError without one, or when a plugin is missing.

    Without `pipe_key` it is the one that the configuration's `pipe_key` names, else training_pipeline or pipeline.
    """
    check_plugins(wanted_plugins(config))
    key = pipe_key or select(config, "pipe_key") or next((key for key in PIPE_KEYS if key in config), None)
    if key is None:
        raise ConfigError(
            f"The configuration has no pipeline: neither {' nor '.join(PIPE_KEYS)} is a key of it. "
            f"Name the key with --pipe-key; the keys are {', '.join(map(str, config))}."
        )
    if not isinstance(key, str):
        raise ConfigError(f"pipe_key is {key!r}; give the name of a key, such as training_pipeline.")
    node = select(config, key)
    if node is None:
        raise ConfigError(f"The configuration has no '{key}' (the pipe key). {did_you_mean(key, map(str, config))}")
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
