"""Start the ranks of a job as workers of Ray, on this machine or on a cluster, and watch over them.

Each rank is a process of its own under a Ray actor, which starts it, passes signals on and says how it ended. So a
rank is the same program, with the same variables, logs and reports, as under torchrun.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gnomon.errors import GnomonError, LaunchError, RankFailedError
from gnomon.launch._processes import LAUNCH_VARIABLE
from gnomon.launch._reports import RankReports, explain_exits, explain_interruption
from gnomon.launch._watch import FAILURE_GRACE_S, INTERRUPT_GRACE_S
from gnomon.launch.local import RankJob, rank_environment
from gnomon.launch.rank_errors import LOG_DIR_VARIABLE
from gnomon.runtime.environment import LAUNCHER_VARIABLES
from gnomon.runtime.signals import StopFlag

POLL_S = 0.3
PLACEMENT_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class RayResources:
    """What each rank takes of the cluster at `address` (None: RAY_ADDRESS, else a new one on this machine)."""

    address: str | None = None
    cpus_per_rank: float = 1.0
    gpus_per_rank: float = 0.0
    custom: Mapping[str, float] = field(default_factory=dict)

    def bundle(self) -> dict[str, float]:
        """Return the resources of one rank under the names of Ray."""
        gpus = {"GPU": self.gpus_per_rank} if self.gpus_per_rank else {}
        return {"CPU": self.cpus_per_rank, **gpus, **self.custom}


@dataclass(frozen=True, kw_only=True)
class RankPlace:
    """Where Ray put a rank: the node, its address, a free port there, and the GPUs that the rank was given."""

    node: str
    address: str
    port: int
    gpus: tuple[str, ...] = ()


def run_ranks_on_ray(job: RankJob, resources: RayResources | None = None) -> None:
    """Run the job to its end in workers of Ray; whatever happens, none of its processes is left.

    `log_dir` must be the same folder on every node. On Ctrl-C or SIGTERM the ranks get SIGTERM and a minute to write
    a checkpoint. Raises LaunchError, InterruptedRunError, RankFailedError or the GnomonError that a rank reported.
    """
    resources = resources or RayResources()
    if job.ranks < 1:
        raise LaunchError(f"ranks={job.ranks}: at least one process is needed. Set ranks=1 or more.")
    reports = RankReports(job.log_dir, job.ranks)
    try:
        job.log_dir.mkdir(parents=True, exist_ok=True)
        reports.clear()
    except OSError as error:
        raise LaunchError(f"The log folder '{job.log_dir}' cannot be used: {error.strerror}.") from None
    ray = _import_ray()
    started_here = _connect(ray, job.ranks, resources)
    try:
        with StopFlag() as stop:
            _RayRanks(ray, job, resources, reports).run(stop)
    finally:
        reports.clear_pids()
        if started_here:
            ray.shutdown()


def rank_variables(places: Sequence[RankPlace], port: int | None = None) -> list[dict[str, str]]:
    """Return the variables that torchrun would set, for each rank, from where Ray put it.

    All ranks of a node see all GPUs of that node which the job was given, so that LOCAL_RANK counts them.
    """
    nodes = [place.node for place in places]
    master = {"MASTER_ADDR": places[0].address, "MASTER_PORT": str(port or places[0].port)}
    variables = []
    for rank, place in enumerate(places):
        gpus = [gpu for other in places if other.node == place.node for gpu in other.gpus]
        variables.append(
            {
                "RANK": str(rank),
                "LOCAL_RANK": str(nodes[:rank].count(place.node)),
                "WORLD_SIZE": str(len(places)),
                "LOCAL_WORLD_SIZE": str(nodes.count(place.node)),
                **master,
                **({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}),
            }
        )
    return variables


class RankProcess:
    """The actor: one rank as a child process of a Ray worker, which dies with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def place(self) -> RankPlace:
        """Return where this worker runs."""
        context = _import_ray().get_runtime_context()
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        gpus = tuple(str(gpu) for gpu in context.get_accelerator_ids().get("GPU", []))
        return RankPlace(
            node=context.get_node_id(), address=_import_ray().util.get_node_ip_address(), port=port, gpus=gpus
        )

    def start(self, arguments: list[str], variables: dict[str, str], folder: str) -> None:
        """Start `python *arguments` in `folder` with `variables` added to those of the worker."""
        inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
        raylet = {"RAY_RAYLET_PID": os.environ.get("RAY_RAYLET_PID", "")}  # by which the rank knows that Ray started it
        environment = {**inherited, **raylet, **variables}
        self._process = subprocess.Popen([sys.executable, *arguments], env=environment, cwd=folder)

    def poll(self) -> int | None:
        """Return the exit code of the rank (negative: a signal), or None while it runs."""
        assert self._process is not None  # start comes first
        return self._process.poll()

    def send(self, number: int) -> None:
        """Send a signal to the rank."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


class _RayRanks:
    """The actors of one job: start them, wait for them, stop all of them."""

    def __init__(self, ray: Any, job: RankJob, resources: RayResources, reports: RankReports) -> None:
        self._ray = ray
        self._job = job
        self._resources = resources
        self._reports = reports
        self._codes: dict[int, int | None] = {}  # of the ranks that ended, in that order
        self._actors: list[Any] = []

    def run(self, stop: StopFlag) -> None:
        """Run the ranks to their end; raise InterruptedRunError if `stop` is set, else what explains a failure."""
        group = self._reserve()
        try:
            self._start(group)
            failed_at: float | None = None
            while not stop and len(self._codes) < self._job.ranks:
                time.sleep(POLL_S)
                self._poll()
                if failed_at is None and any(self._codes.values()):
                    failed_at = time.monotonic()
                if failed_at is not None and time.monotonic() > failed_at + FAILURE_GRACE_S:
                    break
            if stop:
                raise self._interrupt(stop)
            if failed_at is not None:
                raise self._explain()
        finally:
            for actor in self._actors:
                self._ray.kill(actor)
            self._ray.util.remove_placement_group(group)

    def _reserve(self) -> Any:
        """Return a placement group for all ranks; raise LaunchError if the cluster has no room for them."""
        bundle, ranks = self._resources.bundle(), self._job.ranks
        total = self._ray.cluster_resources()
        for name, amount in bundle.items():
            if amount * ranks > total.get(name, 0.0):
                raise LaunchError(
                    f"{ranks} ranks need {amount * ranks:g} {name}, but the Ray cluster has {total.get(name, 0.0):g}. "
                    f"Start fewer ranks, give each less, or add nodes."
                )
        group = self._ray.util.placement_group([bundle] * ranks, strategy="PACK")
        if not group.wait(timeout_seconds=PLACEMENT_TIMEOUT_S):
            self._ray.util.remove_placement_group(group)
            raise LaunchError(
                f"The Ray cluster had no room for {ranks} ranks of {bundle} within {PLACEMENT_TIMEOUT_S:g} s: other "
                "jobs hold it (`ray status` shows them). Wait for them, or start fewer ranks."
            )
        return group

    def _start(self, group: Any) -> None:
        scheduling = importlib.import_module("ray.util.scheduling_strategies").PlacementGroupSchedulingStrategy
        launch = {LAUNCH_VARIABLE: uuid.uuid4().hex}
        actor = self._ray.remote(RankProcess)
        for rank in range(self._job.ranks):
            options = {
                "num_cpus": self._resources.cpus_per_rank,
                "num_gpus": self._resources.gpus_per_rank,
                "resources": dict(self._resources.custom),
                "scheduling_strategy": scheduling(group, placement_group_bundle_index=rank),
                "runtime_env": {"env_vars": launch},
            }
            self._actors.append(actor.options(**options).remote())
        places = self._call("place")
        job = self._job
        arguments = ["-m", "gnomon.launch.rank_main", job.module, *job.arguments]
        threads = job.threads_per_rank or max(1, int(self._resources.cpus_per_rank))
        is_one_node = len({place.node for place in places}) == 1
        common = {**rank_environment(job.ranks if is_one_node else 1, threads), **launch}
        common |= {LOG_DIR_VARIABLE: str(job.log_dir.resolve())}
        common |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        starts = [
            actor.start.remote(arguments, {**common, **own}, str(Path.cwd()))
            for actor, own in zip(self._actors, rank_variables(places, job.port), strict=True)
        ]
        self._get(starts)

    def _poll(self) -> None:
        """Take down the exit codes of the ranks that have ended; one whose worker is gone was killed with it."""
        for rank, actor in enumerate(self._actors):
            if rank in self._codes:
                continue
            try:
                code = self._ray.get(actor.poll.remote())
            except self._ray.exceptions.RayActorError:
                code = -signal.SIGKILL
            if code is not None:
                self._codes[rank] = code

    def _interrupt(self, stop: StopFlag) -> GnomonError:
        """Ask the ranks to stop, wait until they did, and return what to raise."""
        deadline, count = time.monotonic() + INTERRUPT_GRACE_S, stop.count
        for actor in self._actors:
            actor.send.remote(int(signal.SIGTERM))
        while stop.count == count and len(self._codes) < self._job.ranks and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self._poll()
        return explain_interruption(self._reports, stop.signal_name or "", len(self._codes) < self._job.ranks)

    def _explain(self) -> GnomonError:
        unfinished = self._reports.pids()
        silent = [rank for rank, code in self._codes.items() if code and rank in unfinished]
        return explain_exits(self._reports, silent, self._codes)

    def _call(self, method: str) -> list[Any]:
        return self._get([getattr(actor, method).remote() for actor in self._actors])

    def _get(self, calls: list[Any]) -> list[Any]:
        try:
            values: list[Any] = self._ray.get(calls)
        except self._ray.exceptions.RayError as error:
            raise RankFailedError(
                f"A worker of Ray died before its rank started: {str(error).splitlines()[0]}"
            ) from None
        return values


def _import_ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise LaunchError(f"launcher=ray needs Ray: {error}. Install it with pip install 'gnomon[ray]'.") from None


def _connect(ray: Any, ranks: int, resources: RayResources) -> bool:
    """Join the cluster, or start one here; return whether this did it. Raises LaunchError if it cannot be reached."""
    if ray.is_initialized():
        return False
    address = resources.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address, "logging_level": "WARNING"}
    if address is None:
        cpus = max(os.cpu_count() or 1, int(ranks * resources.cpus_per_rank + 0.999))
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False, "logging_level": "WARNING"}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"The Ray cluster at '{address}' cannot be reached" if address else "Ray cannot be started here"
        raise LaunchError(
            f"{where}: {str(error).splitlines()[0]} Check RAY_ADDRESS, and for a cluster with tokens RAY_AUTH_MODE and "
            "RAY_AUTH_TOKEN_PATH."
        ) from None
    return True
