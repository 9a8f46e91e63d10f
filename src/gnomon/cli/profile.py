"""`gnomon profile`: see where the time and the memory of a run went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import print_json, stdout_to_stderr

if TYPE_CHECKING:
    from rich.table import Table

    from gnomon.profile.measurement import Measurement

app = typer.Typer(help="See where the time and the memory of a run went.", no_args_is_help=True)


@app.callback()
def _profile() -> None:
    pass


@app.command("train")
def train(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a measurement.json that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the measurement as JSON.")] = False,
) -> None:
    """Profile a few steps of a training run with its own settings, and write measurement.json into RUN_DIR."""
    from gnomon.errors import RunDirectoryError
    from gnomon.profile.measure import measure
    from gnomon.runtime.run_directory import RunDirectory

    run = RunDirectory.open(run_dir)
    if run.measurement.exists() and not force:
        raise RunDirectoryError(f"'{run.measurement}' exists already. Add --force to measure again and replace it.")
    with stdout_to_stderr():
        measurement = measure(run)
    if as_json:
        print_json(measurement)
        return
    from gnomon.console import make_console

    make_console(fold_in_pipes=True).print(_table(measurement))
    typer.echo(f"Measurement written to {run.measurement}")


def _table(measurement: Measurement) -> Table:
    from rich.table import Table

    from gnomon.spec import MEMORY_TERMS, TIME_TERMS
    from gnomon.units import format_bytes, format_count, format_percent, format_seconds

    table = Table(title=f"{measurement.model.name} on {measurement.device}, rank 0")
    for name in ("", "measured", "share"):
        table.add_column(name, justify="right" if name else "left")
    step_s, peak = measurement.step_time_s, measurement.peak_memory_bytes
    table.add_row("step time", format_seconds(step_s), "")
    table.add_row("tokens per second", format_count(measurement.tokens_per_s), "")
    table.add_row("MFU", format_percent(measurement.mfu), "", end_section=True)
    for term, seconds in measurement.time.as_dict().items():
        table.add_row(TIME_TERMS[term], format_seconds(seconds), format_percent(seconds / step_s if step_s else None))
    table.add_section()
    table.add_row("peak memory", format_bytes(peak), "")
    for term, size in measurement.memory.as_dict().items():
        table.add_row(MEMORY_TERMS[term], format_bytes(size), format_percent(size / peak if peak else None))
    return table
