"""`gnomon compare`: prediction against measurement, term by term."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import print_json

if TYPE_CHECKING:
    from rich.table import Table

    from gnomon.report.comparison import Comparison


def command(
    run_dir: Annotated[
        Path | None, typer.Argument(help="Run directory with estimate.json and measurement.json.", show_default=False)
    ] = None,
    estimate: Annotated[
        Path | None, typer.Option("--estimate", help="Estimate to compare, instead of RUN_DIR.", show_default=False)
    ] = None,
    measurement: Annotated[
        Path | None,
        typer.Option("--measurement", help="Measurement to compare, instead of RUN_DIR.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare what was predicted with what was measured; RUN_DIR also gets comparison.json."""
    comparison = _comparison(run_dir, estimate, measurement)
    if as_json:
        print_json(comparison)
    else:
        _print(comparison)


def _comparison(run_dir: Path | None, estimate: Path | None, measurement: Path | None) -> Comparison:
    from gnomon.errors import ReportError
    from gnomon.plan.estimate import Estimate
    from gnomon.profile.measurement import Measurement
    from gnomon.report.build import compare_run
    from gnomon.report.compare import compare
    from gnomon.runtime.run_directory import RunDirectory

    if run_dir is not None and estimate is None and measurement is None:
        return compare_run(RunDirectory.open(run_dir))
    if run_dir is None and estimate is not None and measurement is not None:
        return compare(Estimate.load(estimate), Measurement.load(measurement))
    raise ReportError("Give either RUN_DIR, or both --estimate FILE and --measurement FILE.")


def _print(comparison: Comparison) -> None:
    from rich.text import Text

    from gnomon.console import make_console

    console = make_console(fold_in_pipes=True)
    console.print(_table(comparison))
    for sentence in comparison.summary:
        console.print(Text(f"• {sentence}"))


def _table(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    from gnomon.report.words import term_cells

    table = Table(title=Text(comparison.title), title_justify="left")
    for name in ("", "predicted", "measured", "difference", "error"):
        table.add_column(name, justify="right" if name else "left")
    for terms in (comparison.headline, comparison.time, comparison.memory):
        for term in terms:
            table.add_row(*term_cells(term))
        table.add_section()
    return table
