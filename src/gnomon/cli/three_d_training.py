"""`3dtrn`: analyse a training step that is described in dlcalc's YAML schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gnomon.cli._output import print_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def command(
    config: Annotated[
        Path,
        typer.Argument(
            help="YAML file with model, parallelism, performance, data, hardware and, if wanted, cross_dc.",
            metavar="CONFIG",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON; seconds and bytes.")] = False,
) -> None:
    """Analyse memory, communication and time of a training step that is split in three dimensions or more."""
    from gnomon.plan.training_3d.analyse import analyse
    from gnomon.plan.training_3d.schema import TrainingConfig

    report = analyse(TrainingConfig.load(config), config.stem)
    if as_json:
        print_json(report)
        return
    from gnomon.console import make_console
    from gnomon.plan.training_3d.render import render

    render(report, make_console(fold_in_pipes=True))
