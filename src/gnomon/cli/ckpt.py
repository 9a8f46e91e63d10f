"""`gnomon ckpt`: look into checkpoints; also the script `ckpt-summarize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import print_json

if TYPE_CHECKING:
    from gnomon.ckpt.contents import Checkpoint


def summarize(
    path: Annotated[Path, typer.Argument(help="Checkpoint: a file or a folder.", metavar="PATH", show_default=False)],
    full: Annotated[bool, typer.Option("--full", help="List every name and shorten nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the full list as JSON.")] = False,
) -> None:
    """Show names, shapes, dtypes and sizes of a checkpoint, without PyTorch and without executing what is in it.

    The exit code is 1 for one that is damaged, or that runs something when pickle loads it.
    """
    from gnomon.ckpt.render import verdict
    from gnomon.ckpt.summarize import summarize as read
    from gnomon.errors import CheckpointError

    try:
        checkpoint = read(path)
        if as_json:
            print_json(checkpoint)
        else:
            _print(checkpoint, full)
    except MemoryError:
        raise CheckpointError(
            f"'{path}' lists more names and values than the memory of this process holds. Allow it more."
        ) from None
    if not_to_be_loaded := verdict(checkpoint):
        raise CheckpointError(not_to_be_loaded)


def _print(checkpoint: Checkpoint, full: bool) -> None:
    from gnomon.ckpt.render import render_checkpoint
    from gnomon.console import make_console

    make_console().print(render_checkpoint(checkpoint, full))


app = typer.Typer(help="Look into checkpoints.", no_args_is_help=True)
app.command("summarize")(summarize)


@app.callback()
def _ckpt() -> None:
    pass


ckpt_summarize_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
ckpt_summarize_app.command()(summarize)
