"""Which workers train together, and at which addresses they meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment, parse_tasks_per_node
from gnomon.topology.sources.hostlist import expand

_GIVEN_AWAY = 32_768  # Linux's net.ipv4.ip_local_port_range begins here
_USUAL_PORTS = range(10_000, 30_000)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers of a run in order of rank, as `host:port`; no address at all for one process alone."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    addresses: tuple[str, ...] = ()

    @property
    def environment(self) -> RankEnvironment:
        """The same place, for what does not know TensorFlow."""
        return RankEnvironment(rank=self.rank, world_size=self.world_size)

    @property
    def is_main(self) -> bool:
        """True for the worker that writes the run directory."""
        return self.rank == 0


def find_cluster(variables: Mapping[str, str], port: int | None = None) -> Cluster:
    """Return the cluster that TF_CONFIG describes, else that of torchrun's, Open MPI's or SLURM's variables.

    Without TF_CONFIG, the worker with local rank r listens on port + r of its host; `port` follows by default from the
    port where the ranks of PyTorch would meet (MASTER_PORT, or what follows from the job). Raises LaunchError where
    the hosts cannot be known or the variables contradict each other.
    """
    if "TF_CONFIG" in variables:
        return _from_tf_config(variables["TF_CONFIG"])
    environment = RankEnvironment.detect(variables)
    if environment.world_size == 1:
        return Cluster()
    master, master_port = environment.master or _master(variables)
    workers = _workers_per_host(environment, variables)
    hosts = [master] if len(workers) == 1 else _hosts(environment, variables, len(workers))
    first = port or _usual_port(master_port)
    if first + max(workers) > 2**16:
        raise LaunchError(
            f"The {max(workers)} workers of a host would listen on ports {first} and following, which end at 65535. "
            "Set a lower one: strategy={name: multi_worker, port: 20000}."
        )
    addresses = [
        f"{host}:{first + index}" for host, count in zip(hosts, workers, strict=True) for index in range(count)
    ]
    return Cluster(
        rank=environment.rank,
        local_rank=environment.local_rank,
        world_size=environment.world_size,
        addresses=tuple(addresses),
    )


def _usual_port(master_port: int) -> int:
    """Return the port above that of the ranks; below those that the system gives to connections, where it is one of
    them (torchrun's is): the next one may be taken before a worker listens on it."""
    return master_port + 1 if master_port < _GIVEN_AWAY else _USUAL_PORTS[master_port % len(_USUAL_PORTS)]


def _workers_per_host(environment: RankEnvironment, variables: Mapping[str, str]) -> list[int]:
    if environment.source == "slurm":
        return parse_tasks_per_node(variables["SLURM_STEP_TASKS_PER_NODE"])
    nodes, rest = divmod(environment.world_size, environment.local_world_size)
    if rest:
        raise LaunchError(
            f"{environment.world_size} workers are not the same number on every host "
            f"({environment.local_world_size} on this one). Start equally many, or set TF_CONFIG."
        )
    return [environment.local_world_size] * nodes


def _hosts(environment: RankEnvironment, variables: Mapping[str, str], nodes: int) -> list[str]:
    nodelist = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_JOB_NODELIST")
    if nodelist is None:
        raise LaunchError(
            f"{environment.world_size} workers on {nodes} hosts, but the names of the hosts are not known: neither "
            "TF_CONFIG nor SLURM_JOB_NODELIST is set. Set TF_CONFIG on every worker."
        )
    hosts = expand(nodelist)
    if len(hosts) != nodes:
        raise LaunchError(
            f"{environment.world_size} workers, {environment.local_world_size} per host, need {nodes} hosts, but "
            f"SLURM names {len(hosts)} ({nodelist}). Start the same number of tasks on each, or set TF_CONFIG."
        )
    return hosts


def _master(variables: Mapping[str, str]) -> tuple[str, int]:
    address, port = variables.get("MASTER_ADDR", "127.0.0.1"), variables.get("MASTER_PORT")
    if port is None or not port.isdecimal():
        found = "is not set" if port is None else f"is '{port}', which is not a number"
        raise LaunchError(
            f"The workers need a port to meet, and MASTER_PORT {found}. Start them with torchrun or SLURM, or set it."
        )
    return address, int(port)


def _from_tf_config(text: str) -> Cluster:
    try:
        document = json.loads(text)
        listed, task = document["cluster"], document["task"]
        chief, workers = list(listed.get("chief", [])), list(listed.get("worker", []))
        index = int(task["index"]) + (len(chief) if task["type"] == "worker" else 0)
        addresses = tuple(str(address) for address in chief + workers)
        known = task["type"] in ("chief", "worker") and set(listed) <= {"chief", "worker"}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LaunchError(
            f"TF_CONFIG in the environment is malformed ({type(error).__name__}: {error}). It needs "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    if not known or not 0 <= index < len(addresses):
        raise LaunchError(
            f"TF_CONFIG in the environment is task {task.get('type')} {task.get('index')} of a cluster with "
            f"{', '.join(f'{len(hosts)} {kind}' for kind, hosts in listed.items()) or 'nobody'}. "
            "Training takes place on tasks chief and worker, numbered from 0."
        )
    return Cluster(rank=index, world_size=len(addresses), addresses=addresses)
