"""`gnomon calibrate`: measure this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import free_path, print_json, stdout_to_stderr

if TYPE_CHECKING:
    from rich.table import Table

    from gnomon.spec import HardwareProfile


def command(
    ranks: Annotated[
        str | None, typer.Option("--ranks", help="Numbers of ranks to measure with, as in 1,2. Default: by device.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    budget_s: Annotated[float, typer.Option("--budget", help="Seconds to spend, about.")] = 90.0,
    output: Annotated[Path, typer.Option("--output", "-o", help="YAML file to write.")] = Path("hardware.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the profile as JSON too.")] = False,
) -> None:
    """Measure what this machine achieves, and write it as a hardware profile for `gnomon plan`."""
    from gnomon.errors import ConfigError
    from gnomon.profile.calibrate import calibrate

    if output.is_dir() or not output.absolute().parent.is_dir():
        raise ConfigError(
            f"--output is '{output}', which is no place for a file. Name a YAML file in a folder that exists."
        )
    counts = None if ranks is None else _numbers(ranks)
    with stdout_to_stderr():
        profile = calibrate(ranks=counts, device=device, budget_s=budget_s)
    written = profile.save(free_path(output, force))
    if as_json:
        print_json(profile)
    else:
        from gnomon.console import make_console

        make_console(fold_in_pipes=True).print(_table(profile))
    if warning := profile.unsteady():
        typer.echo(warning, err=True)
    kept = "" if written == output else f" ({output} exists and was kept; --force overwrites it)"
    typer.echo(f"Hardware profile written to {written}{kept}", err=as_json)


def _numbers(text: str) -> list[int]:
    from gnomon.errors import CalibrationError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise CalibrationError(f"--ranks is '{text}'; give numbers of ranks separated by commas, as in --ranks 1,2.")
    return [int(part) for part in parts]


def _table(profile: HardwareProfile) -> Table:
    from rich.table import Table

    from gnomon.units import format_bandwidth, format_flops, format_seconds

    table = Table(title=f"{profile.accelerator.name}, measured in {format_seconds(profile.duration_s)}")
    table.add_column("fastest")
    for count in profile.shares:
        table.add_column(f"{count} rank(s)", justify="right")
    shares = list(profile.shares.values())
    for key in sorted({key for share in shares for key in share.matmul if key.endswith(".forward")}):
        rates = [format_flops(max(share.matmul[key].rate), per_second=True) for share in shares]
        table.add_row(f"matrix multiply, {key.partition('.')[0]}", *rates)
    for key in sorted({key for share in shares for key in share.memory}):
        table.add_row(f"memory, {key}", *[format_bandwidth(max(share.memory[key].rate)) for share in shares])
    for key in sorted({key for share in shares for key in share.collectives}):
        found = [share.collectives.get(key) for share in shares]
        table.add_row(key, *["" if c is None else format_bandwidth(max(c.bandwidth.rate)) for c in found])
    table.add_row("launch of one operator", *[format_seconds(share.dispatch_forward_s) for share in shares])
    return table
