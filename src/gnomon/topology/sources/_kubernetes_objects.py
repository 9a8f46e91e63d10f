"""What matters of a Kubernetes node and pod: accelerators, labels, state."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

ACCELERATORS = ("nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "aws.amazon.com/neuron", "habana.ai/gaudi")

_PARTS = re.compile(r"aws\.amazon\.com/neuron(core|device)|nvidia\.com/(mig-.+|gpu\.shared)")
"""Other names under which pods ask for accelerators or for parts of them; how many make one is not said."""

VOLUME_ANNOTATION = "csi.volume.kubernetes.io/nodeid"
"""JSON of node ids by storage driver; those of AWS drivers are instance ids."""

_AWS_INSTANCE = re.compile(r"i-[0-9a-f]{8,}")


@dataclass(frozen=True, eq=False)
class KubernetesNode:
    """A machine. `accepts_pods` is false when it is cordoned or not ready."""

    name: str
    labels: Mapping[str, str]
    accelerators: int
    accepts_pods: bool
    instance_id: str | None

    @classmethod
    def from_api(cls, item: Mapping[str, Any]) -> Self:
        """Read the JSON of a v1 Node."""
        metadata, spec, status = item["metadata"], item.get("spec", {}), item.get("status", {})
        ready = {entry["type"]: entry["status"] for entry in status.get("conditions") or ()}.get("Ready", "True")
        return cls(
            name=metadata["name"],
            labels=metadata.get("labels") or {},
            accelerators=_count(status.get("allocatable")),
            accepts_pods=ready == "True" and not spec.get("unschedulable"),
            instance_id=_instance_id(spec.get("providerID"), metadata.get("annotations") or {}),
        )


@dataclass(frozen=True, eq=False)
class KubernetesPod:
    """A pod that waits or runs; `node` is None while it waits.

    `accelerators` are the whole ones reserved for it; `takes_accelerators` is true for parts of one too.
    """

    name: str
    namespace: str
    node: str | None
    accelerators: int
    takes_accelerators: bool
    marks: Mapping[str, str]
    terminating: bool

    @classmethod
    def from_api(cls, item: Mapping[str, Any]) -> Self:
        """Read the JSON of a v1 Pod; `marks` are its annotations and labels."""
        metadata, spec = item["metadata"], item["spec"]
        return cls(
            name=metadata["name"],
            namespace=metadata["namespace"],
            node=spec.get("nodeName") or None,
            accelerators=_reserved(spec),
            takes_accelerators=any(
                _count(_requests(item)) or any(map(_PARTS.fullmatch, _requests(item))) for item in _containers(spec)
            ),
            marks={**(metadata.get("annotations") or {}), **(metadata.get("labels") or {})},
            terminating="deletionTimestamp" in metadata,
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the containers of a pod; what those that initialise it ask for is reserved for its whole life too."""
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def _reserved(spec: Mapping[str, Any]) -> int:
    """Return the accelerators that Kubernetes reserves for a pod.

    Containers and sidecars run together; the other init containers run before, one at a time (Kubernetes
    documentation, "Resource sharing within containers" of init and of sidecar containers).
    """
    together, alone = 0, 0
    for item in spec.get("initContainers") or ():
        count = _count(_requests(item))
        if item.get("restartPolicy") == "Always":
            together += count
        else:
            alone = max(alone, together + count)
    return max(alone, together + sum(_count(_requests(item)) for item in spec.get("containers") or ()))


def _requests(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a container asks for and is not "0"; limits stand in for requests that are not given."""
    resources = container.get("resources") or {}
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount for name, amount in asked.items() if str(amount) != "0"}


def _count(resources: Mapping[str, Any] | None) -> int:
    counts = (str((resources or {}).get(name, 0)) for name in ACCELERATORS)
    return sum(int(count) for count in counts if count.isdecimal())  # a quantity of devices is a whole number


def _instance_id(provider_id: str | None, annotations: Mapping[str, str]) -> str | None:
    """Return the EC2 instance id in `aws:///us-east-1a/i-0abc...`, or among the node ids of the storage drivers."""
    candidates = [(provider_id or "").rsplit("/", 1)[-1]]
    try:
        drivers = json.loads(annotations.get(VOLUME_ANNOTATION, "{}"))
        candidates += [value for value in drivers.values() if isinstance(value, str)]
    except (ValueError, AttributeError):
        pass  # the annotation belongs to other software; the instance id is never required
    return next((candidate for candidate in candidates if _AWS_INSTANCE.fullmatch(candidate)), None)
