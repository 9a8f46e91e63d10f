"""EC2: the network nodes above each instance, from the API DescribeInstanceTopology."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from gnomon.topology.graph import UNKNOWN_ACCELERATORS, Topology
from gnomon.topology.sources._aws_errors import REFUSED, ask, explain
from gnomon.topology.sources._errors import TopologySourceError, missing_client, some_of

MAX_IDS_PER_CALL = 100
"""Limit of DescribeInstanceTopology, for instance ids and for results on a page."""


def read_topology(
    instance_type: str | None = None,
    region: str | None = None,
    availability_zone: str | None = None,
    instance_ids: Sequence[str] | None = None,
    client: Any = None,
) -> Topology:
    """Return running instances with their network nodes, from the farthest to the nearest, as EC2 orders them.

    The instances are `instance_ids`, or all of `instance_type` and `availability_zone` in the region (by default that
    of the AWS configuration). EC2 does not say which of them are busy. Instances without network nodes (stopped, or of
    a type that has none) are left out and counted in `source`, but are an error where their ids were given.
    Raises TopologySourceError for missing credentials, region or permission, throttling, and unknown ids.
    """
    client = client or connect(region)
    filters = [
        {"Name": name, "Values": [value]}
        for name, value in (("instance-type", instance_type), ("availability-zone", availability_zone))
        if value
    ]
    wanted = list(dict.fromkeys(instance_ids or ()))
    instances = ask(lambda: list(_describe(client, filters, wanted)), "ec2:DescribeInstanceTopology")
    source = " ".join(["EC2", client.meta.region_name, *(part for part in (availability_zone, instance_type) if part)])
    placed = [instance for instance in instances if instance.get("NetworkNodes")]
    _check_found(wanted, instances, placed, source)
    counts, note = _accelerators(client, {instance["InstanceType"] for instance in placed})
    left_out = len(instances) - len(placed)
    notes = [note, f"{left_out} instances without network nodes left out" if left_out else ""]
    notes = [text for text in notes if text]
    nodes = [
        {
            "name": instance["InstanceId"],
            "path": instance["NetworkNodes"],
            "accelerators": counts[instance["InstanceType"]],
            "labels": _labels(instance),
        }
        for instance in placed
    ]
    source += f" ({'; '.join(notes)})" if notes else ""
    return Topology.from_mapping({"nodes": nodes, "source": source}, where=source)


def instance_paths(instance_ids: Sequence[str], region: str | None = None, client: Any = None) -> dict[str, list[str]]:
    """Return the network nodes of the instances that have any, by id, from the farthest to the nearest."""
    client = client or connect(region)
    instances = ask(lambda: list(_describe(client, [], list(instance_ids))), "ec2:DescribeInstanceTopology")
    return {instance["InstanceId"]: path for instance in instances if (path := instance.get("NetworkNodes"))}


def connect(region: str | None) -> Any:
    """Return an EC2 client of boto3 for the region, by default that of the AWS configuration."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise missing_client("boto3", "Reading a topology from EC2") from None
    config = Config(retries={"mode": "standard", "total_max_attempts": 6}, connect_timeout=10, read_timeout=60)
    return ask(lambda: boto3.client("ec2", region_name=region, config=config), "ec2:DescribeInstanceTopology")


def _describe(client: Any, filters: list[dict[str, Any]], ids: list[str]) -> Iterator[dict[str, Any]]:
    paginator = client.get_paginator("describe_instance_topology")
    if not ids:
        pages = paginator.paginate(Filters=filters, PaginationConfig={"PageSize": MAX_IDS_PER_CALL})
        for page in pages:
            yield from page["Instances"]
    for start in range(0, len(ids), MAX_IDS_PER_CALL):  # a page size and ids exclude each other
        for page in paginator.paginate(Filters=filters, InstanceIds=ids[start : start + MAX_IDS_PER_CALL]):
            yield from page["Instances"]


def _check_found(wanted: list[str], instances: list[dict[str, Any]], placed: list[dict[str, Any]], source: str) -> None:
    missing = set(wanted) - {instance["InstanceId"] for instance in instances}
    if missing:
        raise TopologySourceError(
            f"{source} has no instances {some_of(missing)}. Check the ids, type, zone and region."
        )
    unplaced = set(wanted) - {instance["InstanceId"] for instance in placed}
    if unplaced:
        raise TopologySourceError(
            f"{source} knows no network nodes of {some_of(unplaced)}: not running, or of a type that has none."
        )
    if not placed:
        types = ", ".join(sorted({instance["InstanceType"] for instance in instances}))
        found = f"{len(instances)} instances, of types without network nodes: {types}" if instances else "no instance"
        raise TopologySourceError(f"{source}: found {found}. Check the instance type, zone and region.")


def _accelerators(client: Any, types: set[str]) -> tuple[dict[str, int | None], str]:
    """Return the accelerators of each instance type; None for all, and a note, when EC2 may not be asked about them."""
    from botocore.exceptions import ClientError

    counts: Counter[str] = Counter()
    try:
        for page in client.get_paginator("describe_instance_types").paginate(InstanceTypes=sorted(types)):
            for item in page["InstanceTypes"]:
                devices = [
                    *item.get("GpuInfo", {}).get("Gpus", ()),
                    *item.get("NeuronInfo", {}).get("NeuronDevices", ()),
                ]
                counts[item["InstanceType"]] = sum(device["Count"] for device in devices)
    except ClientError as error:
        if error.response["Error"]["Code"] not in REFUSED:
            raise explain(error, "ec2:DescribeInstanceTypes") from None
        return dict.fromkeys(types), f"ec2:DescribeInstanceTypes is not allowed; {UNKNOWN_ACCELERATORS}"
    return {name: counts[name] or 1 for name in types}, ""


def _labels(instance: dict[str, Any]) -> dict[str, str]:
    keys = {
        "instance_type": "InstanceType",
        "zone": "AvailabilityZone",
        "placement_group": "GroupName",
        "capacity_block": "CapacityBlockId",
    }
    return {label: instance[key] for label, key in keys.items() if instance.get(key)}
