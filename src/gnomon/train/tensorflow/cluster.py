"""Which workers train together, and at which addresses they meet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from gnomon.errors import LaunchError
from gnomon.runtime.environment import RankEnvironment
from gnomon.topology.sources.hostlist import expand

_FIRST_SLURM_PORT = 20_000
_SLURM_PORTS = 10_000


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The workers of a run in order of rank, as `host:port`; no address at all for one process alone."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    addresses: tuple[str, ...] = ()

    @property
    def is_main(self) -> bool:
        """True for the worker that writes the run directory."""
        return self.rank == 0


def find_cluster(variables: Mapping[str, str], port: int | None = None) -> Cluster:
    """Return the cluster that TF_CONFIG describes, else that of torchrun's or SLURM's variables.

    Without TF_CONFIG, the worker with local rank r listens on port + r of its host; `port` is by default
    MASTER_PORT + 1, and 20000 + job number % 10000 under SLURM without MASTER_PORT. Raises LaunchError where the hosts
    cannot be known or the variables contradict each other.
    """
    if "TF_CONFIG" in variables:
        return _from_tf_config(variables["TF_CONFIG"])
    environment = RankEnvironment.detect(variables)
    if environment.world_size == 1:
        return Cluster()
    hosts = _hosts(environment, variables)
    first = port or _default_port(variables)
    if first + environment.local_world_size > 2**16:
        raise LaunchError(
            f"The {environment.local_world_size} workers of a host would listen on ports {first} and following, which "
            "end at 65535. Set a lower one: strategy={name: multi_worker, port: 20000}."
        )
    local = environment.local_world_size
    addresses = tuple(f"{host}:{first + index}" for host in hosts for index in range(local))
    return Cluster(
        rank=environment.rank,
        local_rank=environment.local_rank,
        world_size=environment.world_size,
        addresses=addresses,
    )


def _hosts(environment: RankEnvironment, variables: Mapping[str, str]) -> list[str]:
    nodes, rest = divmod(environment.world_size, environment.local_world_size)
    if rest:
        raise LaunchError(
            f"{environment.world_size} workers are not the same number on every host "
            f"({environment.local_world_size} on this one). Start equally many, or set TF_CONFIG."
        )
    if nodes == 1:
        return [variables.get("MASTER_ADDR", "127.0.0.1")]
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


def _default_port(variables: Mapping[str, str]) -> int:
    for name, offset in (("MASTER_PORT", 1), ("SLURM_JOB_ID", None)):
        text = variables.get(name)
        if text is None:
            continue
        if not text.isdecimal():
            raise LaunchError(f"{name}='{text}' in the environment is not a number.")
        return int(text) + offset if offset is not None else _FIRST_SLURM_PORT + int(text) % _SLURM_PORTS
    raise LaunchError(
        "The workers need a port to meet: MASTER_PORT is not set. Start them with torchrun or SLURM, or set "
        "strategy={name: multi_worker, port: 20000}."
    )


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
