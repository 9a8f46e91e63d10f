"""The program `gnomon`: one verb per file."""

from __future__ import annotations

from typing import Annotated

import typer

from gnomon import __version__
from gnomon.cli import calibrate, ckpt, compare, convert, exec_pipeline, plan, plugins, profile, report, topo, track, ui
from gnomon.cli._run import run

app = typer.Typer(
    name="gnomon",
    help="Plan, run, profile and compare the training of neural networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gnomon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


app.add_typer(plan.app, name="plan")
app.command("calibrate")(calibrate.command)
app.command("exec-pipeline")(exec_pipeline.command)
app.add_typer(plugins.app, name="plugins")
app.add_typer(profile.app, name="profile")
app.add_typer(convert.app, name="convert")
app.add_typer(ckpt.app, name="ckpt")
app.add_typer(topo.app, name="topo")
app.add_typer(track.app, name="track")
app.add_typer(ui.app, name="ui")
app.command("compare")(compare.command)
app.command("report")(report.command)


def main() -> None:
    """Run the command line; on failure print one message on stderr and exit with the error's code."""
    run(app)
