"""`gnomon exec-pipeline`: run the pipeline that a configuration describes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnomon.cli._output import print_json, stdout_to_stderr

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from gnomon.pipeline.job import JobResult

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the configuration: key=value, +key=value, ~key.", metavar="OVERRIDES"),
]


def command(
    overrides: Overrides = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML file of the configuration.", show_default=False)
    ] = None,
    config_path: Annotated[
        Path | None,
        typer.Option("--config-path", "-cp", help="Folder to look for --config-name in.", show_default="current"),
    ] = None,
    config_name: Annotated[
        str | None,
        typer.Option("--config-name", "-cn", help="Name of the configuration, without .yaml.", show_default="demo"),
    ] = None,
    pipe_key: Annotated[
        str | None,
        typer.Option("--pipe-key", help="Key of the pipeline.", show_default="training_pipeline or pipeline"),
    ] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Steps to run: plan,train or 1:3.", show_default="all")
    ] = None,
    cfg: Annotated[
        str | None, typer.Option("--cfg", help="'job': print the resolved configuration and run nothing.")
    ] = None,
    multirun: Annotated[
        bool, typer.Option("--multirun", "-m", help="Run once per value of sweeps such as a=1,2.")
    ] = False,
    trust: Annotated[
        list[str] | None, typer.Option("--trust", help="Package that _target_ may name; repeatable.", metavar="PKG")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Run a pipeline of components; without options, the packaged demo."""
    from gnomon.pipeline.job import compose_jobs, run_job

    _check(config, config_path, config_name, cfg)
    jobs = compose_jobs(*_source(config, config_path, config_name), overrides=overrides or [], multirun=multirun)
    if cfg is not None:
        _print_configurations([job.config for job in jobs], as_json)
        return
    documents = []
    for job in jobs:
        with stdout_to_stderr() if as_json else nullcontext():
            result = run_job(job, pipe_key=pipe_key, steps=steps, trusted=trust or ())
        documents.append(_document(result))
        if not as_json and isinstance(result.output, Path):
            typer.echo(str(result.output))
    if as_json:
        print_json(documents if multirun else documents[0])


def _check(config: Path | None, config_path: Path | None, config_name: str | None, cfg: str | None) -> None:
    from gnomon.errors import ConfigError

    if config is not None and (config_path is not None or config_name is not None):
        raise ConfigError("Give either --config FILE, or --config-path and --config-name, not both.")
    if config_path is not None and config_name is None:
        raise ConfigError("--config-path needs --config-name: which configuration of that folder is meant?")
    if cfg not in (None, "job"):
        raise ConfigError(f"--cfg is '{cfg}'; the only value is 'job', the configuration of the pipeline.")


def _source(config: Path | None, config_path: Path | None, config_name: str | None) -> tuple[Path | None, str]:
    """Return the folder to look in first (None: packaged configurations only) and the name of the configuration."""
    from gnomon.config.compose import locate_config

    if config is not None:
        return locate_config(config)
    if config_name is None:
        return None, "demo"
    return config_path or Path.cwd(), config_name


def _print_configurations(configs: list[DictConfig], as_json: bool) -> None:
    from gnomon.config import to_plain, to_yaml

    if as_json:
        plain = [to_plain(config) for config in configs]
        print_json(plain if len(plain) > 1 else plain[0])
    else:
        print("---\n".join(to_yaml(config) for config in configs), end="")


def _document(result: JobResult) -> dict[str, Any]:
    return {
        "overrides": result.overrides,
        "run_dir": result.run_dir,
        "seconds": result.timings,
        "result": result.output,
    }
