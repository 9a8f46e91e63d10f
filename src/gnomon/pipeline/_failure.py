"""What is said of a step whose own code failed: which step, with what, and on which line."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gnomon.component import Component
from gnomon.component.monitor import label_here
from gnomon.errors import GnomonError

_MARK = "_gnomon_step"
_LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
_NOT_THEIRS = tuple(f"{folder}{os.sep}" for folder in (*_LIBRARIES, str(Path(__file__).parents[1])))


class StepFailedError(Exception):
    """A step raised something that is no error of gnomon's; the cause is what it raised.

    No GnomonError, because nobody knows whether the user or the author of the step can mend it. Of several ranks, one
    that says what is wrong therefore counts for more.
    """


@contextmanager
def marked_by_step(step: Component, label: str) -> Iterator[None]:
    """Write on an exception that passes in which step it was raised: the innermost that knows."""
    try:
        yield
    except BaseException as error:
        error.__dict__.setdefault(_MARK, f"'{label_here(label)}' ({_class_of(step)})")
        raise


@contextmanager
def explained_failure(component: Component) -> Iterator[None]:
    """Raise StepFailedError from what a step raised; errors of gnomon's own and Ctrl-C pass as they are."""
    try:
        yield
    except (GnomonError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        step = error.__dict__.get(_MARK, f"'{component.name}' ({_class_of(component)})")
        raise StepFailedError(f"Step {step} failed: {_describe(error)}, at {_place(error)}.") from error


def _class_of(step: Component) -> str:
    return f"{type(step).__module__}.{type(step).__qualname__}"


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it left the program (SystemExit: {error.code}) instead of returning or raising an error"
    message = next(iter(str(error).splitlines()), "").rstrip(".: ")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _place(error: BaseException) -> str:
    """Return file:line of the innermost call that is neither in gnomon nor in a library, else of the innermost."""
    calls = traceback.extract_tb(error.__traceback__)
    theirs = [call for call in calls if not call.filename.startswith((*_NOT_THEIRS, "<"))]
    call = (theirs or calls)[-1]
    return f"{_short(call.filename)}:{call.lineno}"


def _short(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
