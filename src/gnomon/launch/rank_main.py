"""`python -m gnomon.launch.rank_main MODULE ARGS...`: what every rank of a local job starts as.

It ties the rank's life to its launcher, sends its output to the log folder, and runs MODULE as `__main__`
inside `report_rank_error`, so that even an error during its imports is reported.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from gnomon.launch._processes import LAUNCH_VARIABLE, belongs_to
from gnomon.launch.rank_errors import LOG_DIR_VARIABLE, report_rank_error
from gnomon.runtime.signals import die_with_parent


def main() -> None:
    """Run the module named on the command line; raise SystemExit when it fails."""
    rank = int(os.environ.get("RANK", "0"))
    log_dir = Path(os.environ[LOG_DIR_VARIABLE])
    _stay_with_torchrun()
    _redirect(log_dir, rank)
    pid_file = log_dir / f"rank-{rank}.pid"
    pid_file.write_text(str(os.getpid()), encoding="utf-8")
    sys.argv = sys.argv[1:]
    code: object = 0
    try:
        with report_rank_error():
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        code = leaving.code
    finally:
        pid_file.unlink(missing_ok=True)
    leave(code)


def leave(code: object) -> NoReturn:
    """End the process with `code` after the exit functions, without unloading libraries.

    The threads of a collective backend sometimes abort while the interpreter is torn down; the work is done by then.
    """
    status = code if isinstance(code, int) else int(code is not None)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _stay_with_torchrun() -> None:
    die_with_parent()
    started_by_torchrun = "RANK" in os.environ
    # torchrun may have died before the kernel was asked to watch it; then this rank has been given to another parent
    if started_by_torchrun and sys.platform == "linux" and not belongs_to(os.getppid(), os.environ[LAUNCH_VARIABLE]):
        os._exit(1)


def _redirect(log_dir: Path, rank: int) -> None:
    """Append stderr to the rank's log, and stdout too unless this is rank 0, which talks to the terminal."""
    for stream, wanted in (("stdout", rank != 0), ("stderr", True)):
        if wanted:
            with (log_dir / f"rank-{rank}.{stream}.log").open("ab") as log:
                os.dup2(log.fileno(), getattr(sys, stream).fileno())
    faulthandler.enable()


if __name__ == "__main__":
    main()
