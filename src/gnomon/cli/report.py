"""`gnomon report`: a run directory as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    run_dir: Annotated[Path, typer.Argument(help="Run directory with estimate.json, measurement.json or both.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write report.html (one file, works offline), report.md and report.json into RUN_DIR."""
    from gnomon.report.build import build_report
    from gnomon.runtime.run_directory import RunDirectory

    page = build_report(RunDirectory.open(run_dir))
    if as_json:
        typer.echo(page.with_name("report.json").read_text(encoding="utf-8"), nl=False)
    else:
        typer.echo(str(page))
    if open_page:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
