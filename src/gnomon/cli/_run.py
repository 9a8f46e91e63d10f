"""Run a command line, and turn every failure into one message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, Any

import typer

from gnomon.console import no_color
from gnomon.errors import GnomonError, InterruptedRunError

LOG_LEVEL = "GNOMON_LOG_LEVEL"
HELP = ["-h", "--help"]


def run(app: typer.Typer) -> None:
    """Run `app` on the arguments of the process; on failure print one message on stderr and exit with its code."""
    _plain_help()
    try:
        command: Any = typer.main.get_command(app)
        command.invoke = _raising_on_interrupt(command.invoke)
        command(help_option_names=HELP)
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


def _plain_help() -> None:
    """Let Typer's help and usage errors have no bold text either where NO_COLOR is set."""
    if no_color():
        from typer import rich_utils

        rich_utils.COLOR_SYSTEM = None


def _raising_on_interrupt(invoke: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wrap the run of a command so that Ctrl-C becomes an error of gnomon before Typer hides it."""

    def wrapped(context: Any) -> Any:
        try:
            return invoke(context)
        except KeyboardInterrupt:
            raise InterruptedRunError("Interrupted.") from None

    return wrapped


def _fail(message: str, exit_code: int) -> None:
    from gnomon.visible import visible

    lines = [visible(line) for line in message.split("\n")]  # a message may quote what a file says
    print("error: " + "\n".join(lines), file=sys.stderr)
    sys.exit(exit_code)


def _unexpected(error: Exception) -> str:
    """Return the message for a step that failed, or else for a mistake of gnomon's own."""
    from gnomon.pipeline._failure import StepFailedError

    place = _keep_traceback()
    if isinstance(error, StepFailedError):
        return f"{error} {place}"
    reason = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".:")
    return f"gnomon failed unexpectedly: {reason}. {place} Please report it."


def _keep_traceback() -> str:
    """Show the traceback when debugging, else write it to a file; return the sentence that says where it is."""
    import tempfile

    if _debugging():
        _print_traceback(sys.stderr)
        return "The traceback is above."
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gnomon-traceback-", suffix=".txt", delete=False) as file:
            _print_traceback(file)
    except OSError:  # a full disk must not hide the error
        return f"{LOG_LEVEL}=DEBUG shows the traceback."
    return f"The traceback is in {file.name}; {LOG_LEVEL}=DEBUG shows it."


def _print_traceback(file: IO[str]) -> None:
    import traceback

    traceback.print_exc(file=file)


def _debugging() -> bool:
    return os.environ.get(LOG_LEVEL, "").upper() == "DEBUG"
