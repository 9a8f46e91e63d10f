"""What matters of a Kubernetes node and pod: accelerators, labels, state."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gnomon.topology.sources._kubernetes_fields import field, texts

ACCELERATORS = ("nvidia.com/gpu", "amd.com/gpu", "google.com/tpu", "aws.amazon.com/neuron", "habana.ai/gaudi")

_PARTS = re.compile(r"aws\.amazon\.com/neuron(core|device)|nvidia\.com/(mig-.+|gpu\.shared)")
"""Other names under which pods ask for accelerators or for parts of them; how many make one is not said."""

VOLUME_ANNOTATION = "csi.volume.kubernetes.io/nodeid"
"""JSON of node ids by storage driver; those of AWS drivers are instance ids."""

_WHOLE = re.compile(r"[0-9]{1,9}")
"""A quantity of devices, which is a whole number."""

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
    def from_api(cls, item: Any) -> Self:
        """Read the JSON of a v1 Node; raise FieldError for a field that is missing or of another kind."""
        metadata, spec, status = (field(item, part, dict) for part in ("metadata", "spec", "status"))
        conditions = field(status, "conditions", list, [])
        states = {field(entry, "type", str): field(entry, "status", str) for entry in conditions}
        return cls(
            name=field(metadata, "name", str),
            labels=texts(metadata, "labels"),
            accelerators=_count(field(status, "allocatable", dict, {})),
            accepts_pods=states.get("Ready", "True") == "True" and not spec.get("unschedulable"),
            instance_id=_instance_id(field(spec, "providerID", str, ""), texts(metadata, "annotations")),
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
    def from_api(cls, item: Any) -> Self:
        """Read the JSON of a v1 Pod; `marks` are its annotations and labels. Raises FieldError as for a node."""
        metadata, spec = field(item, "metadata", dict), field(item, "spec", dict)
        return cls(
            name=field(metadata, "name", str),
            namespace=field(metadata, "namespace", str),
            node=field(spec, "nodeName", str, "") or None,
            accelerators=_reserved(spec),
            takes_accelerators=any(
                _count(_requests(item)) or any(map(_PARTS.fullmatch, _requests(item))) for item in _containers(spec)
            ),
            marks={**texts(metadata, "annotations"), **texts(metadata, "labels")},
            terminating="deletionTimestamp" in metadata,
        )

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the containers of a pod; what those that initialise it ask for is reserved for its whole life too."""
    return [*field(spec, "initContainers", list, []), *field(spec, "containers", list, [])]


def _reserved(spec: Mapping[str, Any]) -> int:
    """Return the accelerators that Kubernetes reserves for a pod.

    Containers and sidecars run together; the other init containers run before, one at a time (Kubernetes
    documentation, "Resource sharing within containers" of init and of sidecar containers).
    """
    together, alone = 0, 0
    for item in field(spec, "initContainers", list, []):
        count = _count(_requests(item))
        if item.get("restartPolicy") == "Always":
            together += count
        else:
            alone = max(alone, together + count)
    return max(alone, together + sum(_count(_requests(item)) for item in field(spec, "containers", list, [])))


def _requests(container: Any) -> dict[str, Any]:
    """Return what a container asks for and is not "0"; limits stand in for requests that are not given."""
    resources = field(container, "resources", dict, {})
    asked = {**field(resources, "limits", dict, {}), **field(resources, "requests", dict, {})}
    return {name: amount for name, amount in asked.items() if str(amount) != "0"}


def _count(resources: Mapping[str, Any]) -> int:
    counts = (str(resources.get(name, 0)) for name in ACCELERATORS)
    return sum(int(count) for count in counts if _WHOLE.fullmatch(count))


def _instance_id(provider_id: str, annotations: Mapping[str, str]) -> str | None:
    """Return the EC2 instance id in `aws:///us-east-1a/i-0abc...`, or among the node ids of the storage drivers."""
    candidates = [provider_id.rsplit("/", 1)[-1]]
    try:
        drivers = json.loads(annotations.get(VOLUME_ANNOTATION, "{}"))
        candidates += [value for value in drivers.values() if isinstance(value, str)]
    except (ValueError, AttributeError, RecursionError):
        pass  # the annotation belongs to other software; the instance id is never required
    return next((candidate for candidate in candidates if _AWS_INSTANCE.fullmatch(candidate)), None)
