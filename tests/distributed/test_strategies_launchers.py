"""Ranks that srun and mpirun start meet without torchrun: their variables alone say where."""

import os
import subprocess
import sys

import pytest

from gnomon.runtime.environment import LAUNCHER_VARIABLES

pytestmark = pytest.mark.torch_dist

ADD_UP = """
import torch
from gnomon.runtime.environment import RankEnvironment
from gnomon.strategy.registry import create_strategy
environment = RankEnvironment.detect()
strategy = create_strategy("auto", environment, torch.device("cpu"))
strategy.setup()
print(environment.source, strategy.collectives.all_reduce(torch.tensor(environment.rank + 1.0), "sum").item())
strategy.teardown()
"""


def slurm(rank: int) -> dict[str, str]:
    job = str(os.getpid())  # the port follows from it
    return {
        "SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0",
    }  # fmt: skip


def open_mpi(rank: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
        "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": f"prterun-{os.getpid()}@1",
    }  # fmt: skip


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_two_ranks_meet(launcher):
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", ADD_UP],
            env={**inherited, **launcher(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank in ranks:
        stdout, stderr = rank.communicate(timeout=120)
        assert rank.returncode == 0, stderr
        assert stdout.split() == [launcher.__name__.replace("_", ""), "3.0"]
