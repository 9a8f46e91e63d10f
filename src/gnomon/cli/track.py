"""`gnomon track`: which trackers there are, and sending them what they missed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gnomon.cli._output import free_path, print_json, stdout_to_stderr

app = typer.Typer(help="See trackers, and send them what they missed.", no_args_is_help=True)


@app.callback()
def _track() -> None:
    pass


@app.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """Show the installed trackers, the kinds that each takes, and what is missing for it."""
    from gnomon.track.base import KINDS
    from gnomon.track.registry import list_trackers, load_tracker, missing_modules

    found: list[dict[str, Any]] = []
    for name in list_trackers():
        tracker = load_tracker(name)
        kinds = [kind for kind in KINDS if kind in tracker.kinds]
        found.append({"name": name, "kinds": kinds, "missing": missing_modules(tracker)})
    if as_json:
        print_json(found)
        return
    from rich.table import Table

    from gnomon.console import make_console

    table = Table("tracker", "kinds", "missing")
    for entry in found:
        table.add_row(entry["name"], ", ".join(entry["kinds"]), ", ".join(entry["missing"]))
    make_console().print(table)


@app.command("sync")
def sync(
    run_dir: Annotated[Path, typer.Argument(help="Run directory.")],
    to: Annotated[list[str] | None, typer.Option("--to", help="Tracker; all that the run has by default.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of a tracker that is new to this run: KEY=VALUE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was sent as JSON.")] = False,
) -> None:
    """Send what trackers have missed of a run: each row and item once, however often this is called."""
    from gnomon.runtime.run_directory import RunDirectory
    from gnomon.track.sync import sync_run

    with stdout_to_stderr():
        results = sync_run(RunDirectory.open(run_dir), to or (), _parse_options(option or []))
    if as_json:
        print_json(results)
        return
    for result in results:
        typer.echo(f"{result.tracker}, rank {result.rank}: {result.rows} rows and {result.items} items sent")
        for text in result.rejected:
            typer.echo(f"  {text}", err=True)


@app.command("download")
def download(
    experiment: Annotated[str, typer.Option("--experiment", help="Name of the MLflow experiment.")] = "gnomon",
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow server or database; default MLFLOW_TRACKING_URI.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help="Run directory that holds the database.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="CSV file.")] = Path("mlflow_metrics.csv"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Write all metric histories of an MLflow experiment to a CSV: run_id, metric_name, value, step, timestamp (ms)."""
    from gnomon.track.download import write_csv

    path = free_path(output, force)
    uri = _mlflow_uri(tracking_uri, run_dir)
    with stdout_to_stderr():
        count = write_csv(uri, experiment, path)
    typer.echo(f"{count} values written to {path}")


def _parse_options(lines: list[str]) -> dict[str, Any]:
    from gnomon.documents import load_yaml
    from gnomon.errors import ConfigError

    options = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(
                f"--set {line} has no value. Write it as KEY=VALUE, such as tracking_uri=http://host:5000."
            )
        options[key] = load_yaml(value, f"--set {key}", ConfigError)
    return options


def _mlflow_uri(tracking_uri: str | None, run_dir: Path | None) -> str:
    import os

    from gnomon.errors import ConfigError
    from gnomon.track.mlflow import URI_VARIABLE, default_uri

    if tracking_uri and run_dir:
        raise ConfigError("Both --tracking-uri and --run-dir are given. Give one of them.")
    if run_dir is not None:
        if not (run_dir / "mlruns.db").is_file():
            raise ConfigError(f"There is no MLflow database '{run_dir / 'mlruns.db'}'. Give --tracking-uri instead.")
        return default_uri(run_dir)
    uri = tracking_uri or os.environ.get(URI_VARIABLE)
    if not uri:
        raise ConfigError(f"No MLflow store is named. Give --tracking-uri or --run-dir, or set {URI_VARIABLE}.")
    return uri
