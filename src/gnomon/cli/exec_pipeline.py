"""`gnomon exec-pipeline`: run the pipeline that a configuration describes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
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
        str | None, typer.Option("--config", "-c", help="YAML file of the configuration, or URL.", show_default=False)
    ] = None,
    config_path: Annotated[
        Path | None,
        typer.Option("--config-path", "-cp", help="Folder to look for --config-name in.", show_default="current"),
    ] = None,
    config_name: Annotated[
        str | None,
        typer.Option("--config-name", "-cn", help="Name without .yaml, or URL.", show_default="demo"),
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
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="Short for the override strategy=...", show_default=False)
    ] = None,
    run_name: Annotated[
        str | None, typer.Option("--run-name", help="Short for the override run_name=...", show_default=False)
    ] = None,
    install_plugins: Annotated[
        bool, typer.Option("--install-plugins", help="Install missing plugins of the configuration, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --install-plugins: do not ask.")] = False,
    ranks: Annotated[
        int | None,
        typer.Option("--ranks", help="Run every step on so many processes at once.", min=1, show_default="this one"),
    ] = None,
    launcher: Annotated[
        str, typer.Option("--launcher", help="What starts the processes of --ranks: local (torchrun) or ray.")
    ] = "local",
    trust: Annotated[
        list[str] | None, typer.Option("--trust", help="Package that _target_ may name; repeatable.", metavar="PKG")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Run a pipeline of components; without options, the packaged demo."""
    from gnomon.pipeline.job import compose_jobs, run_job

    _check(config, config_path, config_name, cfg)
    changes = [*(overrides or []), *_as_overrides(strategy=strategy, run_name=run_name)]
    jobs = compose_jobs(*_source(config, config_path, config_name), overrides=changes, multirun=multirun)
    if cfg is not None:
        _print_configurations([job.config for job in jobs], as_json)
        return
    if install_plugins:
        _install_plugins([job.config for job in jobs], yes)
    run = run_job if ranks is None else _on_ranks(ranks, launcher)
    documents = []
    for job in jobs:
        with stdout_to_stderr() if as_json else nullcontext():
            result = run(job, pipe_key=pipe_key, steps=steps, trusted=trust or ())
        documents.append(_document(result))
        if not as_json and isinstance(result.output, Path):
            typer.echo(str(result.output))
    if as_json:
        print_json(documents if multirun else documents[0])


def _on_ranks(ranks: int, launcher: str) -> Callable[..., JobResult]:
    from gnomon.launch.registry import load_launcher
    from gnomon.pipeline.ranks import run_job_on_ranks

    return partial(run_job_on_ranks, ranks=ranks, run=load_launcher(launcher))


def _as_overrides(**flags: str | None) -> list[str]:
    """Return an override for each flag that was given, quoted so that the value is taken as text."""
    given = {key: value for key, value in flags.items() if value is not None}
    quoted = {key: value.replace("\\", "\\\\").replace("'", "\\'") for key, value in given.items()}
    return [f"{key}='{value}'" for key, value in quoted.items()]


def _install_plugins(configs: list[DictConfig], yes: bool) -> None:
    from gnomon.cli._install_plugins import install_plugins
    from gnomon.config.plugins import missing_plugins, wanted_plugins

    wanted = {plugin: None for config in configs for plugin in wanted_plugins(config)}
    if missing := missing_plugins(wanted):
        install_plugins(missing, yes)


def _check(config: str | None, config_path: Path | None, config_name: str | None, cfg: str | None) -> None:
    from gnomon.config import is_url
    from gnomon.errors import ConfigError

    if config is not None and (config_path is not None or config_name is not None):
        raise ConfigError("Give either --config FILE, or --config-path and --config-name, not both.")
    if config_path is not None and config_name is None:
        raise ConfigError("--config-path needs --config-name: which configuration of that folder is meant?")
    if config_path is not None and config_name is not None and is_url(config_name):
        raise ConfigError("--config-path is for names of configurations; with a URL, leave it out.")
    if cfg not in (None, "job"):
        raise ConfigError(f"--cfg is '{cfg}'; the only value is 'job', the configuration of the pipeline.")


def _source(config: str | None, config_path: Path | None, config_name: str | None) -> tuple[Path | None, str]:
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
        "cached": result.cached,
        "result": result.output,
    }
