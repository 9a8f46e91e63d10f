"""The program `gnomon`: one verb per file, and every failure as one message."""

from __future__ import annotations

import os
import sys
from typing import IO, Annotated, Any

import typer
from typer.core import TyperGroup

from gnomon import __version__
from gnomon.cli import calibrate, compare, exec_pipeline, plan, profile, report
from gnomon.errors import GnomonError, InterruptedRunError

LOG_LEVEL = "GNOMON_LOG_LEVEL"


class Verbs(TyperGroup):
    """The group of verbs; turns Ctrl-C into an error of gnomon before Typer hides it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; raise InterruptedRunError on Ctrl-C."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise InterruptedRunError("Interrupted.") from None


app = typer.Typer(
    name="gnomon",
    cls=Verbs,
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


app.command("plan")(plan.command)
app.command("calibrate")(calibrate.command)
app.command("exec-pipeline")(exec_pipeline.command)
app.add_typer(profile.app, name="profile")
app.command("compare")(compare.command)
app.command("report")(report.command)


def main() -> None:
    """Run the command line; on failure print one message on stderr and exit with the error's code."""
    try:
        app()
    except GnomonError as error:
        if _debugging():
            _print_traceback(sys.stderr)
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Interrupted.", InterruptedRunError.exit_code)
    except OSError as error:
        if _debugging() or error.strerror is None:
            _fail(_unexpected(error), 1)
        where = f"'{error.filename}': " if error.filename else ""
        _fail(f"{where}{error.strerror}. Check the path, its permissions and the free space.", 1)
    except Exception as error:
        _fail(_unexpected(error), 1)


def _fail(message: str, exit_code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(exit_code)


def _unexpected(error: Exception) -> str:
    """Return the message for a mistake of gnomon's own; the traceback is shown when debugging, else written."""
    import tempfile

    if _debugging():
        _print_traceback(sys.stderr)
        place = "The traceback is above."
    else:
        with tempfile.NamedTemporaryFile("w", prefix="gnomon-traceback-", suffix=".txt", delete=False) as file:
            _print_traceback(file)
        place = f"The traceback is in {file.name}; {LOG_LEVEL}=DEBUG shows it."
    reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")
    return f"gnomon failed unexpectedly: {reason}. {place} Please report it."


def _print_traceback(file: IO[str]) -> None:
    import traceback

    traceback.print_exc(file=file)


def _debugging() -> bool:
    return os.environ.get(LOG_LEVEL, "").upper() == "DEBUG"
