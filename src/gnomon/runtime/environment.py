"""Which rank this process is, from the variables that its launcher set.

Tried in this order: torchrun (and Ray, which sets the same variables), Horovod, Open MPI, a step of SLURM, one process.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gnomon.errors import LaunchError

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
Source = Literal["torchrun", "ray", "horovod", "openmpi", "slurm", "single"]

_HOROVOD = ("HOROVOD_RANK", "HOROVOD_LOCAL_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE")
_OPEN_MPI = (
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
_SLURM = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NUM_TASKS", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE")
_RAY_WORKER = "RAY_RAYLET_PID"
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_FIRST_SPECIAL_STEP = 0xFFFFFFFA  # of SLURM: the interactive step; the batch script and others come after it
_FIRST_PORT, _PORTS = 20_000, 10_000  # below the ports that Linux gives to outgoing connections

LAUNCHER_VARIABLES = (*RANK_VARIABLES, *_HOROVOD, *_OPEN_MPI, "SLURM_STEP_ID", _RAY_WORKER, _TORCHRUN)
"""What decides which rank a process is; a launcher takes it out of the environment of the processes it starts."""


@dataclass(frozen=True, kw_only=True)
class RankEnvironment:
    """The place of this process among the ranks of a run; by default it is alone.

    `master` is (address, port) where the ranks meet, or None if MASTER_ADDR and MASTER_PORT say it.
    """

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    source: Source = "single"
    master: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_world_size <= self.world_size):
            raise LaunchError(
                f"RANK={self.rank}, WORLD_SIZE={self.world_size}, LOCAL_RANK={self.local_rank}, "
                f"LOCAL_WORLD_SIZE={self.local_world_size} ({self.source}) cannot all be true: ranks count from 0 and "
                "stay below their world size. Start the ranks with torchrun, which sets these variables."
            )

    @property
    def is_main(self) -> bool:
        """True on rank 0, which alone writes the run directory."""
        return self.rank == 0

    @classmethod
    def detect(cls, variables: Mapping[str, str] | None = None) -> RankEnvironment:
        """Return the environment in `variables` (default: os.environ); raise LaunchError if it is contradictory."""
        variables = os.environ if variables is None else variables
        if any(name in variables for name in RANK_VARIABLES):
            found = _from_torchrun(variables)
            _refuse_contradiction(found, variables)
            return found
        if _RAY_WORKER in variables:
            return cls()  # a task of Ray on its own; what SLURM says is about the process that started Ray
        if _HOROVOD[0] in variables:
            return _from_horovod(variables)
        if _OPEN_MPI[0] in variables:
            return _from_open_mpi(variables)
        if _is_slurm_rank(variables):
            return _from_slurm(variables)
        return cls()


def parse_tasks_per_node(text: str) -> list[int]:
    """Return the tasks of each node from SLURM's short form: `2(x3),1` is [2, 2, 2, 1]; raise LaunchError."""
    tasks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise LaunchError(f"SLURM_STEP_TASKS_PER_NODE='{text}' is not a list of tasks such as 2(x3),1.")
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def first_host(nodelist: str) -> str:
    """Return the first host of SLURM's short form: `n[003-005,9],m1` is `n003`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodelist)
    if match is None:
        raise LaunchError(f"SLURM's list of nodes '{nodelist}' names no host. Set MASTER_ADDR to the host of rank 0.")
    return "".join(part or "" for part in match.groups())


def _from_torchrun(variables: Mapping[str, str]) -> RankEnvironment:
    is_ray = _RAY_WORKER in variables and _TORCHRUN not in variables
    return _environment(variables, RANK_VARIABLES, "ray" if is_ray else "torchrun", None)


def _from_horovod(variables: Mapping[str, str]) -> RankEnvironment:
    return _environment(variables, _HOROVOD, "horovod", None)


def _from_open_mpi(variables: Mapping[str, str]) -> RankEnvironment:
    found = _environment(variables, _OPEN_MPI, "openmpi", None)
    if "MASTER_ADDR" in variables and "MASTER_PORT" in variables:
        return found
    if found.local_world_size == found.world_size:
        address = "127.0.0.1"
    elif "SLURM_JOB_NODELIST" in variables:
        address = first_host(variables["SLURM_JOB_NODELIST"])
    elif "MASTER_ADDR" not in variables:
        raise LaunchError(
            f"Open MPI started {found.world_size} ranks on several hosts and does not say where rank 0 runs. "
            "Name its host: mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=29500 ..."
        )
    else:
        address = variables["MASTER_ADDR"]
    job = variables.get("PMIX_NAMESPACE") or variables.get("OMPI_MCA_ess_base_jobid") or ""
    return _environment(variables, _OPEN_MPI, "openmpi", _master(variables, address, job))


def _is_slurm_rank(variables: Mapping[str, str]) -> bool:
    """Return whether srun started this process as one of several tasks; a shell in an allocation is not."""
    step, tasks = variables.get("SLURM_STEP_ID", ""), variables.get("SLURM_STEP_NUM_TASKS", "1")
    if not step.isdecimal() or int(step) >= _FIRST_SPECIAL_STEP or "SLURM_PTY_PORT" in variables:
        return False
    return tasks != "1"


def _from_slurm(variables: Mapping[str, str]) -> RankEnvironment:
    _require(variables, _SLURM, "slurm")
    tasks = parse_tasks_per_node(variables["SLURM_STEP_TASKS_PER_NODE"])
    node = _integer("SLURM_NODEID", variables["SLURM_NODEID"])
    if node >= len(tasks) or sum(tasks) != _integer("SLURM_STEP_NUM_TASKS", variables["SLURM_STEP_NUM_TASKS"]):
        raise LaunchError(
            f"SLURM_NODEID={node} and SLURM_STEP_NUM_TASKS={variables['SLURM_STEP_NUM_TASKS']} contradict "
            f"SLURM_STEP_TASKS_PER_NODE={variables['SLURM_STEP_TASKS_PER_NODE']}. Start the ranks with one srun."
        )
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
    if nodes is None and "MASTER_ADDR" not in variables:
        raise LaunchError("SLURM_STEP_NODELIST is not set, so rank 0's host is unknown. Set MASTER_ADDR to it.")
    address = variables.get("MASTER_ADDR") or first_host(nodes or "")
    job = f"{variables.get('SLURM_JOB_ID', '')}.{variables['SLURM_STEP_ID']}"
    names = (*_SLURM[:3], "tasks on this node")
    here = {**variables, names[3]: str(tasks[node])}
    return _environment(here, names, "slurm", _master(variables, address, job))


def _environment(
    variables: Mapping[str, str], names: tuple[str, ...], source: Source, master: tuple[str, int] | None
) -> RankEnvironment:
    """Return the environment from the variables of rank, local rank, world size and local world size."""
    _require(variables, names, source)
    rank, local_rank, world_size, local_world_size = (_integer(name, variables[name]) for name in names)
    return RankEnvironment(
        rank=rank,
        local_rank=local_rank,
        world_size=world_size,
        local_world_size=local_world_size,
        source=source,
        master=master,
    )


def _master(variables: Mapping[str, str], address: str, job: str) -> tuple[str, int]:
    """Return where to meet: what the user set, else `address` and a port that all ranks derive from the job."""
    port = variables.get("MASTER_PORT")
    derived = _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS
    return variables.get("MASTER_ADDR", address), derived if port is None else _integer("MASTER_PORT", port)


def _refuse_contradiction(found: RankEnvironment, variables: Mapping[str, str]) -> None:
    """Raise LaunchError if RANK was set by hand or kept from elsewhere, and the launcher that is here differs."""
    if _TORCHRUN in variables or found.source == "ray":
        return  # started by a task of mpirun or srun, which counts machines rather than ranks
    others = [_HOROVOD, _OPEN_MPI, *([_SLURM] if _is_slurm_rank(variables) else [])]
    for rank, _, size, *_ in others:
        theirs = (variables.get(rank), variables.get(size))
        if theirs[0] is not None and theirs != (str(found.rank), str(found.world_size)):
            raise LaunchError(
                f"RANK={found.rank} and WORLD_SIZE={found.world_size}, but {rank}={theirs[0]} and {size}={theirs[1]}. "
                "Unset RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE, or set them in each task."
            )


def _require(variables: Mapping[str, str], names: tuple[str, ...], source: str) -> None:
    missing = [name for name in names if name not in variables]
    if missing:
        found = [name for name in names if name in variables]
        raise LaunchError(
            f"{', '.join(found)} set in the environment, but not {', '.join(missing)} ({source}). "
            "Start the ranks with torchrun, or unset these variables to run one process."
        )


def _integer(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise LaunchError(
            f"{name}='{text}' in the environment is not an integer. Start the ranks with torchrun, "
            "or unset RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE to run one process."
        ) from None
