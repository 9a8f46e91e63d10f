"""Which pod of a job is which rank, and so which rank its node has."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from gnomon.topology.graph import TopologyError
from gnomon.topology.sources._errors import some_of
from gnomon.topology.sources._kubernetes_objects import KubernetesPod

RANK_KEYS = (
    "batch.kubernetes.io/job-completion-index",  # a label since Kubernetes 1.28, an annotation before
    "training.kubeflow.org/replica-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "apps.kubernetes.io/pod-index",
)

REPLICA_TYPE = "training.kubeflow.org/replica-type"

_RANK = re.compile(r"[0-9]{1,9}")
_WORKER_RANK = re.compile(r"worker-([0-9]{1,9})(?![0-9a-z])")  # not the random 7k2px that a Deployment appends
_TRAILING_RANK = re.compile(r"-([0-9]{1,9})$")


def job_pods(pods: Sequence[KubernetesPod], prefix: str) -> list[KubernetesPod]:
    """Return the pods of the job: by name, and where any of them asks for accelerators only those that do.

    So the launcher of an MPI job, which computes nothing, is no rank. Raises TopologyError when there is none, or one
    waits for a node.
    """
    named = [pod for pod in pods if pod.name.startswith(prefix) and not pod.terminating]
    if not named:
        others = {str(pod) for pod in pods if pod.takes_accelerators}
        running = f" Pods with accelerators: {some_of(others)}." if others else ""
        raise TopologyError(f"No waiting or running pod has a name that starts with '{prefix}'.{running}")
    chosen = [pod for pod in named if pod.takes_accelerators] or named
    waiting = [str(pod) for pod in chosen if pod.node is None]
    if waiting:
        raise TopologyError(f"{len(waiting)} of {len(chosen)} pods of '{prefix}' have no node yet: {some_of(waiting)}.")
    return chosen


def node_ranks(pods: Sequence[KubernetesPod]) -> dict[str, int]:
    """Return the rank of each node in the job.

    With one pod a node it is the pod's rank. With several, each node must have as many, with consecutive ranks.
    Raises TopologyError when two pods claim one rank, a pod has none, or the pods of a node are not consecutive.
    """
    by_rank: dict[int, KubernetesPod] = {}
    by_node: dict[str, list[int]] = defaultdict(list)
    masters = sum(_is_master(pod) for pod in pods)
    for pod in pods:
        # a PyTorchJob counts masters and workers separately, and ranks the masters first
        rank = _own_rank(pod) + (masters if REPLICA_TYPE in pod.marks and not _is_master(pod) else 0)
        if rank in by_rank:
            raise TopologyError(
                f"Pods {by_rank[rank]} and {pod} both claim rank {rank}. Give a longer prefix, or a namespace, that "
                "fits one job only."
            )
        by_rank[rank] = pod
        by_node[str(pod.node)].append(rank)
    each = max(len(ranks) for ranks in by_node.values())
    for node, ranks in by_node.items():
        first = min(ranks)
        if first % each or sorted(ranks) != list(range(first, first + each)):
            raise TopologyError(
                f"Node '{node}' runs the ranks {', '.join(map(str, sorted(ranks)))}. Nodes with several pods of a job "
                f"must each have {each} consecutive ones."
            )
    return {node: min(ranks) // each for node, ranks in by_node.items()}


def _own_rank(pod: KubernetesPod) -> int:
    """Return the rank that a pod's marks give, else that of `worker-N` in its name, else the number at its end."""
    for key in RANK_KEYS:
        if _RANK.fullmatch(pod.marks.get(key, "")):
            return int(pod.marks[key])
    match = _WORKER_RANK.search(pod.name) or _TRAILING_RANK.search(pod.name)
    if match is None:
        raise TopologyError(
            f"The rank of pod {pod} is not known: its name has no 'worker-' with a number, it "
            f"does not end in a number, and the pod has none of the labels {', '.join(RANK_KEYS)}."
        )
    return int(match[1])


def _is_master(pod: KubernetesPod) -> bool:
    return pod.marks.get(REPLICA_TYPE) == "master"
