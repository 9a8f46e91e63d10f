"""`gnomon plugins`: what is installed beside gnomon."""

from __future__ import annotations

from typing import Annotated

import typer

from gnomon.cli._output import print_json

app = typer.Typer(help="Installed plugins.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """Show the installed plugins: distribution, version and what each adds."""
    from gnomon.config.plugins import list_plugins

    plugins = list_plugins()
    if as_json:
        print_json(plugins)
        return
    if not plugins:
        typer.echo("No plugins are installed. A plugin is a package with entry points in a group 'gnomon.*'.")
        return
    from rich.table import Table

    from gnomon.console import make_console

    table = Table("plugin", "version", "group", "name", "object")
    for plugin in plugins:
        for group, points in plugin.entry_points.items():
            for name, value in points.items():
                table.add_row(plugin.distribution, plugin.version, group, name, value)
    make_console().print(table)
