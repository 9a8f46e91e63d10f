"""Start the ranks of a job on this machine and watch over them."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from gnomon.errors import LaunchError
from gnomon.launch._reports import RankReports, port_in_use
from gnomon.launch._watch import LaunchedProcess
from gnomon.launch.rank_errors import LOG_DIR_VARIABLE
from gnomon.runtime.environment import LAUNCHER_VARIABLES
from gnomon.runtime.signals import StopFlag
from gnomon.runtime.versions import usable_cores

ALLOCATOR_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
}
"""glibc keeps freed tensors for the next step, instead of giving their pages back and faulting them in again.

By default glibc maps every block above a threshold (at most 32 MiB) on its own and unmaps it when freed, and
gives the top of the heap back as soon as it is free, so each step pays a page fault per 4 KiB of every tensor.
Bytes; mallopt(3) names them. glibc before 2.35 ignores a mapping threshold above 32 MiB.
"""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MASTER_VARIABLES = ("MASTER_ADDR", "MASTER_PORT")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class RankJob:
    """`ranks` copies of `python -m module *arguments` on this machine.

    Rank 0 writes its stdout to the terminal, everything else goes to `log_dir` (see `rank_errors`).
    `threads_per_rank` None shares the cores out evenly; `port` None takes a free one.
    """

    module: str
    arguments: tuple[str, ...]
    log_dir: Path
    ranks: int = 1
    threads_per_rank: int | None = None
    port: int | None = None


def rank_environment(ranks: int, threads_per_rank: int | None = None) -> dict[str, str]:
    """Return the variables to add to the environment of each rank: threads, allocator, unbuffered output.

    What the user has set is left out, so that it stays as it is; an explicit `threads_per_rank` comes before it.
    """
    set_by_user = next((os.environ[name] for name in _THREAD_VARIABLES if name in os.environ), None)
    threads = str(threads_per_rank or set_by_user or max(1, usable_cores() // ranks))
    thread_variables = dict.fromkeys(_THREAD_VARIABLES, threads)  # where only one is set, MKL's would win
    defaults = {**thread_variables, **ALLOCATOR_ENVIRONMENT, "PYTHONUNBUFFERED": "1"}
    if ranks > 1 and any(name == "lo" for _, name in socket.if_nameindex()):
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # the ranks of one machine need no name service to meet
    free = {name: value for name, value in defaults.items() if name not in os.environ}
    return {**free, **thread_variables} if threads_per_rank else free


def run_ranks(job: RankJob) -> None:
    """Run the job to its end; whatever happens, none of its processes is left.

    On Ctrl-C or SIGTERM the ranks get SIGTERM and a minute to write a checkpoint; a second signal kills them.
    Raises LaunchError, PortInUseError, InterruptedRunError, RankFailedError or the GnomonError that a rank reported.
    """
    _check(job)
    reports = RankReports(job.log_dir, job.ranks)
    try:
        job.log_dir.mkdir(parents=True, exist_ok=True)
        reports.clear()
    except OSError as error:
        raise LaunchError(f"The log folder '{job.log_dir}' cannot be used: {error.strerror}.") from None
    with StopFlag() as stop, LaunchedProcess(rank_command(job), _environment(job), reports) as process:
        process.watch(stop)


def rank_command(job: RankJob) -> list[str]:
    """Return the command line: Python itself for one rank, torchrun for several."""
    rank = ["-m", "gnomon.launch.rank_main", job.module, *job.arguments]
    if job.ranks == 1:
        return [sys.executable, *rank]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={job.ranks}"),
        *("--max-restarts=0", *_rendezvous(job.port), *rank),
    ]


def _rendezvous(port: int | None) -> list[str]:
    if port is None:
        return ["--standalone", f"--local-addr={_LOOPBACK}"]
    return ["--rdzv-backend=static", "--node-rank=0", f"--master-addr={_LOOPBACK}", f"--master-port={port}"]


def _environment(job: RankJob) -> dict[str, str]:
    dropped = (*LAUNCHER_VARIABLES, *_MASTER_VARIABLES)  # this may itself be a rank of torchrun, srun, mpirun
    inherited = {name: value for name, value in os.environ.items() if name not in dropped}
    added = rank_environment(job.ranks, job.threads_per_rank)
    return {**inherited, **added, LOG_DIR_VARIABLE: str(job.log_dir.resolve())}


def _check(job: RankJob) -> None:
    if job.ranks < 1:
        raise LaunchError(f"ranks={job.ranks}: at least one process is needed. Set ranks=1 or more.")
    if job.ranks > 1 and importlib.util.find_spec("torch") is None:
        raise LaunchError(f"ranks={job.ranks} needs PyTorch, which is not installed: pip install 'gnomon[torch]'.")
    if job.ranks > 1 and job.port is not None:
        check_port(job.port)


def check_port(port: int) -> None:
    """Raise PortInUseError or LaunchError unless this process could listen on `port` itself."""
    if not isinstance(port, int) or not 0 < port < 2**16:
        raise LaunchError(f"port={port!r} is not a port. Choose one from 1024 to 65535, or port=null for a free one.")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(("", port))
        except PermissionError:
            raise LaunchError(f"port={port} needs administrator rights. Choose one from 1024 to 65535.") from None
        except OSError:
            raise port_in_use(port) from None
