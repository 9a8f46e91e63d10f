"""Kubernetes: machines, the network labels on them, and the pods of a job."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gnomon.topology.graph import Topology, TopologyError
from gnomon.topology.sources import ec2 as ec2_source
from gnomon.topology.sources._errors import TopologySourceError
from gnomon.topology.sources._kubernetes_api import connect, list_objects
from gnomon.topology.sources._kubernetes_objects import ACCELERATORS, KubernetesNode, KubernetesPod
from gnomon.topology.sources._kubernetes_ranks import job_pods, node_ranks
from gnomon.topology.sources._network_labels import LOCATIONS, choose_family, read_paths

REGION = "topology.kubernetes.io/region"

_SHOWN_LABELS = {
    "instance_type": "node.kubernetes.io/instance-type",
    "region": REGION,
    "zone": "topology.kubernetes.io/zone",
}

_NOT_OVER = "status.phase!=Succeeded,status.phase!=Failed"

Paths = dict[str, tuple[str, ...]]


def read_topology(
    search_prefix: str | None = None,
    namespace: str | None = None,
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    levels: Sequence[str] | None = None,
    ec2: bool = False,
) -> Topology:
    """Return the machines with accelerators, the switches that their labels name, and the ranks of a job.

    The job is the pods whose names start with `search_prefix`, in `namespace` or in all. Machines without accelerators
    are left out unless the job runs there. A machine is busy when another pod asks for accelerators or parts of them
    on it, or when it takes no pods. `levels` are the label keys from the farthest level to the nearest (those of a
    Kueue Topology); without them the labels of the known vendors are tried, then EC2 is asked about AWS instances if
    `ec2` is set, then region and zone stand in, which `source` says. Raises TopologySourceError when the server cannot
    be asked.
    """
    api = connect(kubeconfig, context)
    nodes = list_objects(api, "list_node", KubernetesNode.from_api)
    pods = _pods(api, namespace)
    job = job_pods(pods, search_prefix) if search_prefix else []
    ranks = node_ranks(job) if job else {}
    unknown = sorted(ranks.keys() - {node.name for node in nodes})
    if unknown:
        raise TopologyError(
            f"Node '{unknown[0]}' runs a pod of the job, but the server does not list it. Run it again."
        )
    kept = [node for node in nodes if node.accelerators or node.name in ranks]
    if not kept:
        raise TopologySourceError(f"None of the {len(nodes)} nodes offers accelerators ({', '.join(ACCELERATORS)}).")
    paths, notes = _paths(kept, levels, ec2)
    notes += _left_out(kept, paths, ranks, notes[0])
    if namespace:
        notes.append(f"of other pods only those in namespace {namespace} are seen")
    return _topology([node for node in kept if node.name in paths], paths, ranks, job, pods, notes)


def _pods(api: Any, namespace: str | None) -> list[KubernetesPod]:
    read = KubernetesPod.from_api
    if namespace is None:
        return list_objects(api, "list_pod_for_all_namespaces", read, field_selector=_NOT_OVER)
    return list_objects(api, "list_namespaced_pod", read, namespace=namespace, field_selector=_NOT_OVER)


def _paths(nodes: Sequence[KubernetesNode], levels: Sequence[str] | None, ec2: bool) -> tuple[Paths, list[str]]:
    labels = {node.name: node.labels for node in nodes}
    family = choose_family(labels, levels)
    if ec2 and family in LOCATIONS:
        return _ec2_paths(nodes), ["network nodes of EC2"]
    return read_paths(labels, family), [f"{family.name} labels", *([family.note] if family.note else [])]


def _ec2_paths(nodes: Sequence[KubernetesNode]) -> Paths:
    """Return the path that EC2 knows of each node with an instance id; ask one region after the other."""
    by_region: dict[str | None, dict[str, str]] = defaultdict(dict)
    for node in nodes:
        if node.instance_id:
            by_region[node.labels.get(REGION)][node.instance_id] = node.name
    if not by_region:
        raise TopologySourceError("EC2 cannot be asked: no node has an EC2 instance id in its providerID.")
    paths: Paths = {}
    for region, names in by_region.items():
        found = ec2_source.instance_paths(list(names), region)
        paths.update({names[instance]: tuple(path) for instance, path in found.items()})
    if not paths:
        raise TopologySourceError("EC2 knows no network nodes of these instances: their types have none.")
    return paths


def _left_out(nodes: Sequence[KubernetesNode], paths: Paths, ranks: dict[str, int], known: str) -> list[str]:
    missing = [node.name for node in nodes if node.name not in paths]
    of_the_job = [name for name in missing if name in ranks]
    if of_the_job:
        raise TopologyError(f"Node '{of_the_job[0]}' of the job lacks what places the others in the network: {known}.")
    return [f"{len(missing)} nodes that lack them left out"] if missing else []


def _topology(
    nodes: Sequence[KubernetesNode],
    paths: Paths,
    ranks: dict[str, int],
    job: Sequence[KubernetesPod],
    pods: Sequence[KubernetesPod],
    notes: list[str],
) -> Topology:
    own: dict[str, list[KubernetesPod]] = defaultdict(list)
    for pod in job:
        own[str(pod.node)].append(pod)
    taken = {pod.node for pod in set(pods) - set(job) if pod.takes_accelerators}
    described = [
        {
            "name": node.name,
            "path": paths[node.name],
            "accelerators": node.accelerators or sum(pod.accelerators for pod in own[node.name]) or None,
            "rank": ranks.get(node.name),
            "busy": node.name not in ranks and (node.name in taken or not node.accepts_pods),
            "labels": _labels(node, own[node.name]),
        }
        for node in nodes
    ]
    source = f"Kubernetes ({'; '.join(notes)})"
    return Topology.from_mapping({"nodes": described, "source": source}, where=source)


def _labels(node: KubernetesNode, pods: Sequence[KubernetesPod]) -> dict[str, str]:
    labels = {name: node.labels[key] for name, key in _SHOWN_LABELS.items() if key in node.labels}
    if node.instance_id:
        labels["instance_id"] = node.instance_id
    if pods:
        labels["pods"] = ", ".join(sorted(map(str, pods)))
    return labels
