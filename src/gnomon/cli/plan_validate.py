"""`gnomon plan validate`: predict published results and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from gnomon.cli._output import print_json
from gnomon.cli.plan_tables import show


def command(
    file: Annotated[Path, typer.Argument(help="CSV file of published results.", metavar="FILE.csv")],
    as_json: Annotated[bool, typer.Option("--json", help="Print every row and the summary as JSON.")] = False,
    by: Annotated[
        Literal["source", "hardware", "grade"], typer.Option("--by", help="What the errors are grouped by.")
    ] = "source",
    worst: Annotated[int, typer.Option("--rows", min=0, help="Show this many rows, the largest errors first.")] = 10,
) -> None:
    """Predict each row of FILE.csv from its configuration alone, and compare with what it measured."""
    from gnomon.plan.published.score import score, summarize
    from gnomon.plan.published.table import read_table

    table = read_table(file)
    for note in table.notes:
        typer.echo(note, err=True)
    rows = score(table)
    summary = summarize(rows)
    if as_json:
        print_json({"rows": [row.to_mapping() for row in rows], "summary": summary})
        return
    from gnomon.plan.published.render import render_score

    show(render_score(rows, summary, by, worst))
