"""Switches and blocks of SLURM, and the path from the spine to the leaf of each node below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.errors import did_you_mean
from gnomon.topology.graph import TopologyError
from gnomon.topology.sources._slurm_records import Record
from gnomon.topology.sources.hostlist import compress, expand

Paths = dict[str, tuple[str, ...]]
"""Switches from the farthest to the nearest, by node name, in the order of the description."""


@dataclass(frozen=True)
class Switch:
    """One switch or block: the nodes and switches directly below it, and where it is described, for messages."""

    name: str
    nodes: tuple[str, ...]
    switches: tuple[str, ...]
    where: str


def read_switch(record: Record, key: str) -> Switch:
    """Return the switch or block that a line with `key`, Nodes and Switches describes."""
    values = record.values
    return make_switch(values.get(key), values.get("Nodes"), values.get("Switches"), record.where)


def make_switch(name: str | None, nodes: str | None, switches: str | None, where: str) -> Switch:
    """Return the switch of a description that has host lists; raise TopologyError if it is empty or malformed."""
    if not name:
        raise TopologyError(f"{where}: the line names no switch and no block.")
    if not nodes and not switches:
        raise TopologyError(f"{where}: '{name}' has neither nodes nor switches below it.")
    try:
        below = [tuple(expand(hostlist)) if hostlist else () for hostlist in (nodes, switches)]
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from None
    return Switch(name, below[0], below[1], where)


def tree_paths(switches: Sequence[Switch], source: str) -> Paths:
    """Return the path of each node; raise TopologyError for switches that are not a tree.

    Refused are an empty description, a switch described twice, one that nobody describes, one below two others, a
    cycle, and a node below two leaves. Several roots are allowed: SLURM calls them separate networks.
    """
    by_name = _by_name(switches, source)
    parents: dict[str, Switch] = {}
    leaves: dict[str, Switch] = {}
    for switch in switches:
        for child in switch.switches:
            if child not in by_name:
                hint = did_you_mean(child, by_name)
                raise TopologyError(f"{switch.where}: '{switch.name}' names the unknown switch '{child}'. {hint}")
            _claim(parents, child, switch, "switch")
        for node in switch.nodes:
            _claim(leaves, node, switch, "node")
    if not leaves:
        raise TopologyError(f"{source}: no switch has nodes.")
    above = {switch.name: _path_to(switch, parents) for switch in switches}
    return {node: above[leaf.name] for node, leaf in leaves.items()}


def block_paths(blocks: Sequence[Switch], sizes: Sequence[int], source: str) -> Paths:
    """Return the path of each node: the aggregated blocks of `sizes` from the largest, then its own block.

    `sizes` are nodes per block; each after the first groups that many nodes' worth of consecutive blocks, as the
    topology/block plugin does (topology.conf(5), BlockSizes).
    """
    _check_sizes(sizes, source)
    aggregated: dict[str, tuple[str, ...]] = {block.name: () for block in blocks}
    for size in sorted(sizes[1:], reverse=True):
        count = size // sizes[0]
        for start in range(0, len(blocks), count):
            members = [block.name for block in blocks[start : start + count]]
            for member in members:
                aggregated[member] += (f"{compress(members)} (BlockSize {size})",)
    paths = tree_paths(blocks, source)
    return {node: (*aggregated[path[-1]], *path) for node, path in paths.items()}


def _by_name(switches: Sequence[Switch], source: str) -> dict[str, Switch]:
    by_name: dict[str, Switch] = {}
    for switch in switches:
        if switch.name in by_name:
            first = by_name[switch.name].where
            raise TopologyError(f"{switch.where}: '{switch.name}' is described already in {first}.")
        by_name[switch.name] = switch
    if not by_name:
        raise TopologyError(f"{source}: no switch and no block is described.")
    return by_name


def _claim(owners: dict[str, Switch], name: str, owner: Switch, what: str) -> None:
    known = owners.setdefault(name, owner)
    if known is not owner:
        raise TopologyError(
            f"{owner.where}: {what} '{name}' is below '{owner.name}', but {known.where} puts it below '{known.name}'. "
            "Give it one place in the tree."
        )


def _path_to(switch: Switch, parents: dict[str, Switch]) -> tuple[str, ...]:
    path = [switch.name]
    while path[-1] in parents:
        parent = parents[path[-1]]
        if parent.name in path:
            cycle = " > ".join([parent.name, *reversed(path[path.index(parent.name) :])])
            raise TopologyError(f"{parent.where}: the switches go round in a circle: {cycle}.")
        path.append(parent.name)
    return tuple(reversed(path))


def _check_sizes(sizes: Sequence[int], source: str) -> None:
    for size in sizes:
        ratio = size // sizes[0] if sizes[0] > 0 else 0
        if ratio < 1 or size != sizes[0] * ratio or ratio & (ratio - 1):
            raise TopologyError(
                f"{source}: BlockSizes are {', '.join(map(str, sizes))}; each must be the first one times a power of 2."
            )
