"""Ranks as each launcher tells them, in environments such as its documentation describes."""

import pytest

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment, first_host, parse_tasks_per_node

TORCHRUN = {
    "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "n001", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
HOROVOD = {
    "HOROVOD_HOSTNAME": "n002", "HOROVOD_RANK": "3", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2", "HOROVOD_CROSS_RANK": "1", "HOROVOD_CROSS_SIZE": "2",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "31177",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_NODE_RANK": "1", "PMIX_NAMESPACE": "prterun-vm-4242@1",
}  # fmt: skip
OPEN_MPI_ON_TWO_HOSTS = {**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
SLURM_ALLOCATION = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "n[003-006]", "SLURM_NTASKS": "7", "SLURM_NNODES": "4",
    "SLURM_TASKS_PER_NODE": "2(x3),1",
}  # fmt: skip
SLURM_BATCH_SCRIPT = {**SLURM_ALLOCATION, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
SLURM_STEP = {
    **SLURM_ALLOCATION, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_NODELIST": "n[003-006]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
}  # fmt: skip
RAY_WORKER = {"RAY_RAYLET_PID": "77", "RAY_JOB_ID": "01000000"}


def place(environment: RankEnvironment) -> tuple[str, int, int, int, int]:
    e = environment
    return e.source, e.rank, e.local_rank, e.world_size, e.local_world_size


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN, ("torchrun", 5, 1, 8, 4)),
        ({**TORCHRUN, **SLURM_STEP}, ("torchrun", 5, 1, 8, 4)),  # srun torchrun: one task per node
        ({**TORCHRUN, **OPEN_MPI}, ("torchrun", 5, 1, 8, 4)),
        ({**RAY_WORKER, **{k: v for k, v in TORCHRUN.items() if "ELASTIC" not in k}}, ("ray", 5, 1, 8, 4)),
        ({**RAY_WORKER, **SLURM_STEP}, ("single", 0, 0, 1, 1)),  # a task of a Ray that srun started
        (HOROVOD, ("horovod", 3, 1, 4, 2)),
        ({**HOROVOD, **SLURM_STEP}, ("horovod", 3, 1, 4, 2)),
        (OPEN_MPI, ("openmpi", 1, 1, 2, 2)),
        ({**OPEN_MPI, **SLURM_BATCH_SCRIPT}, ("openmpi", 1, 1, 2, 2)),
        (SLURM_STEP, ("slurm", 3, 1, 7, 2)),
        ({**SLURM_STEP, "SLURM_PROCID": "6", "SLURM_LOCALID": "0", "SLURM_NODEID": "3"}, ("slurm", 6, 0, 7, 1)),
        (SLURM_ALLOCATION, ("single", 0, 0, 1, 1)),  # salloc
        (SLURM_BATCH_SCRIPT, ("single", 0, 0, 1, 1)),
        ({**SLURM_STEP, "SLURM_STEP_ID": "4294967290"}, ("single", 0, 0, 1, 1)),  # salloc with use_interactive_step
        ({**SLURM_STEP, "SLURM_PTY_PORT": "40000"}, ("single", 0, 0, 1, 1)),  # srun --pty bash
        ({**SLURM_STEP, "SLURM_STEP_NUM_TASKS": "1"}, ("single", 0, 0, 1, 1)),
    ],
)
def test_each_launcher_is_understood(variables, expected):
    assert place(RankEnvironment.detect(variables)) == expected


@pytest.mark.parametrize(
    ("variables", "master"),
    [
        (TORCHRUN, None),
        (HOROVOD, None),
        (SLURM_STEP, ("n003", 22573)),
        ({**SLURM_STEP, "MASTER_PORT": "1234"}, ("n003", 1234)),
        ({**SLURM_STEP, "MASTER_ADDR": "head"}, ("head", 22573)),
        (OPEN_MPI, ("127.0.0.1", 24521)),
        ({**OPEN_MPI, "MASTER_ADDR": "a", "MASTER_PORT": "1"}, None),
        ({**OPEN_MPI_ON_TWO_HOSTS, **SLURM_ALLOCATION}, ("n003", 24521)),
        ({**OPEN_MPI_ON_TWO_HOSTS, "MASTER_ADDR": "head"}, ("head", 24521)),
    ],
)
def test_the_ranks_know_where_to_meet(variables, master):
    assert RankEnvironment.detect(variables).master == master


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({**HOROVOD, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}, "HOROVOD_RANK=3"),
        ({**SLURM_STEP, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "7", "LOCAL_WORLD_SIZE": "2"},
         "RANK=0 and WORLD_SIZE=7, but SLURM_PROCID=3 and SLURM_STEP_NUM_TASKS=7.*set them in each task"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "but not OMPI_COMM_WORLD_LOCAL_RANK, .*openmpi"),
        (OPEN_MPI_ON_TWO_HOSTS, "does not say where rank 0 runs.*mpirun -x MASTER_ADDR=HOST"),
        ({**SLURM_STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, "contradict SLURM_STEP_TASKS_PER_NODE"),
        ({**SLURM_STEP, "SLURM_STEP_TASKS_PER_NODE": "two"}, "is not a list of tasks"),
        ({**SLURM_STEP, "SLURM_LOCALID": "2"}, r"LOCAL_RANK=2, LOCAL_WORLD_SIZE=2 \(slurm\) cannot all be true"),
    ],
)  # fmt: skip
def test_a_contradiction_is_an_error(variables, message):
    with pytest.raises(LaunchError, match=message):
        RankEnvironment.detect(variables)


def test_short_forms_of_slurm():
    assert parse_tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert parse_tasks_per_node("4") == [4]
    hosts = {"n[003-005,9],m1": "n003", "vm": "vm", "a,b": "a", "n[7,9]-ib": "n7-ib", "r1n2": "r1n2"}
    assert {text: first_host(text) for text in hosts} == hosts
