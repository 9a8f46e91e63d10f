"""How a rank tells the launcher what became of it: small files in the folder that GNOMON_RANK_LOG_DIR names.

    rank-N.pid             process id; there while the rank runs, removed by every orderly exit
    rank-N.error.json      type name, message, traceback and time of the error that ended the rank
    last_checkpoint.json   step and path of the newest complete checkpoint, written by rank 0
    rank-N.stderr.log      standard error of the rank; rank-N.stdout.log likewise for N > 0
    launcher.log           standard error of torchrun

A process id whose process is gone means that the rank died without a word: by a signal or the kernel.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from gnomon import errors
from gnomon.errors import GnomonError, InterruptedRunError

LOG_DIR_VARIABLE = "GNOMON_RANK_LOG_DIR"
LAST_CHECKPOINT = "last_checkpoint.json"


@dataclass(frozen=True, kw_only=True)
class RankError:
    """The error that ended one rank; `time_s` is seconds since 1970."""

    rank: int
    type_name: str
    message: str
    traceback: str
    time_s: float
    exit_code: int = 1

    @property
    def error_class(self) -> type[GnomonError] | None:
        """The class in gnomon.errors, or None when the error was of another kind."""
        found = getattr(errors, self.type_name, None)
        return found if isinstance(found, type) and issubclass(found, GnomonError) else None

    @property
    def is_interruption(self) -> bool:
        """True when the rank stopped because it was asked to."""
        return self.type_name == InterruptedRunError.__name__


@contextmanager
def report_rank_error() -> Iterator[None]:
    """Turn an exception of a rank into a report for the launcher, a line on stderr and a non-zero exit.

    A GnomonError is shown as its message, anything else with its traceback. Without GNOMON_RANK_LOG_DIR
    (a worker started by hand) no file is written. Raises SystemExit.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(InterruptedRunError.exit_code) from None
    except Exception as error:
        write_rank_error(error)
        if isinstance(error, GnomonError):
            print(error, file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        traceback.print_exc()
        raise SystemExit(1) from None


def write_rank_error(error: Exception) -> None:
    """Write rank-N.error.json, atomically, unless GNOMON_RANK_LOG_DIR is not set."""
    rank = int(os.environ.get("RANK", "0"))
    report = RankError(
        rank=rank,
        type_name=type(error).__name__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
        time_s=time.time(),
        exit_code=error.exit_code if isinstance(error, GnomonError) else 1,
    )
    _write(f"rank-{rank}.error.json", asdict(report))


def report_checkpoint(step: int, path: str | Path) -> None:
    """Tell the launcher that the checkpoint of `step` at `path` is complete (call it on rank 0)."""
    _write(LAST_CHECKPOINT, {"step": step, "checkpoint": str(path)})


def _write(name: str, document: dict[str, object]) -> None:
    folder = os.environ.get(LOG_DIR_VARIABLE)
    if not folder:
        return
    temporary = Path(folder, f".{name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(document, indent=2), encoding="utf-8")
        temporary.replace(Path(folder, name))
    except OSError as error:  # a full disk must not hide the error that is being reported
        print(f"'{name}' cannot be written to '{folder}': {error.strerror}.", file=sys.stderr)
