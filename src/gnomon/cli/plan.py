"""`gnomon plan`: predict one training step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnomon.cli._output import free_path, print_json


def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with model, cluster, layout and workload.", metavar="CONFIG")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, +key=value, ~key.", metavar="OVERRIDES")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the estimate as JSON; written only with --output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for estimate.json.", show_default="current")
    ] = None,
    operators: Annotated[int, typer.Option("--operators", min=0, help="Show this many of the slowest operators.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an estimate.json that exists.")] = False,
) -> None:
    """Predict step time, memory and MFU of a training step, and say where each number comes from."""
    from gnomon.config import load_config, require_values, to_plain
    from gnomon.plan.planner import plan
    from gnomon.spec.resolve import resolve_inputs

    loaded = load_config(config, overrides or [])
    require_values(loaded)
    estimate = plan(*resolve_inputs(to_plain(loaded)))
    if as_json:
        print_json(estimate)
    else:
        from rich.console import Console

        from gnomon.plan.render import render_estimate

        Console().print(render_estimate(estimate, operators))
    if output is not None or not as_json:
        wanted = (output or Path()) / "estimate.json"
        written = estimate.save(free_path(wanted, force))
        kept = "" if written == wanted else f" ({wanted} exists and was kept; --force overwrites it)"
        typer.echo(f"Estimate written to {written}{kept}", err=as_json)
