"""Start the ranks of a job on this machine and watch over them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """`ranks` copies of `python -m module *arguments` on this machine. Logs go to `log_dir`; port None: a free one."""

    module: str
    arguments: tuple[str, ...]
    log_dir: Path
    ranks: int = 1
    threads_per_rank: int | None = None
    port: int | None = None


def rank_environment(ranks: int, threads_per_rank: int | None = None) -> dict[str, str]:
    """Return the environment variables to add for each rank: threads and memory allocator."""
    raise NotImplementedError


def run_ranks(job: RankJob) -> None:
    """Run the job to its end.

    Raises PortInUseError, LaunchError, InterruptedRunError (Ctrl-C, SIGTERM), RankFailedError, or the GnomonError
    that a rank reported.
    """
    raise NotImplementedError
