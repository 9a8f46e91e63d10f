"""Topology files: YAML or JSON, as nested switches or as a flat list of nodes with their paths.

Nested:

    source: cluster A
    switches:
      - name: spine
        switches:
          - name: leaf1
            nodes: ["host[001-016]", {name: host17, rank: 0}, {name: host18, busy: true}]

Flat:

    nodes:
      - {name: host1, path: [spine, leaf1]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gnomon.errors import did_you_mean
from gnomon.spec._noun import read_mapping, write_atomically
from gnomon.topology.graph import NetworkNode, Topology, TopologyError
from gnomon.topology.sources.hostlist import expand

MAX_DEPTH = 32

_TOP_KEYS = ("source", "switches", "nodes")
_SWITCH_KEYS = ("name", "switches", "nodes")


def read_topology(path: str | Path) -> Topology:
    """Return the topology in a YAML or JSON file of either form; its `source` is the path unless the file names one.

    Raises SpecError for a file that is missing, malformed or too large, and TopologyError naming the place of what is
    wrong in it.
    """
    return parse_topology(read_mapping(path), str(path))


def parse_topology(data: Mapping[str, Any], where: str) -> Topology:
    """Return the topology that a mapping of either form describes; `where` names it in errors."""
    _check_keys(data, _TOP_KEYS, where)
    if ("switches" in data) == ("nodes" in data):
        raise TopologyError(f"{where}: give either 'switches' (nested) or 'nodes' (a list with a 'path' each).")
    source = data.get("source") or where
    if "nodes" in data:
        return Topology.from_mapping({"nodes": data["nodes"], "source": source}, where)
    nodes = tuple(_nodes_below(data["switches"], (), f"{where}: switches"))
    return Topology.from_mapping({"nodes": nodes, "source": source}, where)


def write_topology(topology: Topology, path: str | Path) -> Path:
    """Write the nested form atomically, with switches and nodes in their first order; return the path.

    In a nested file nodes stand below their switches, so nodes of different switches lose their order.
    """
    return write_atomically(Path(path), to_nested_yaml(topology))


def to_nested_yaml(topology: Topology) -> str:
    """Return the nested form as YAML text; fields that have their default are left out."""
    top: dict[str, Any] = {"switches": {}}
    for node in topology.nodes:
        place = top
        for switch in node.path:
            place = place.setdefault("switches", {}).setdefault(switch, {"name": switch})
        place.setdefault("nodes", []).append(_node_entry(node))
    header = {"source": topology.source} if topology.source else {}
    text: str = yaml.safe_dump({**header, "switches": _listed(top["switches"])}, sort_keys=False, width=120)
    return text


def _listed(switches: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**entry, "switches": _listed(entry["switches"])} if "switches" in entry else entry
        for entry in switches.values()
    ]


def _node_entry(node: NetworkNode) -> str | dict[str, Any]:
    fields = node.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
    return node.name if set(fields) == {"name"} else fields


def _nodes_below(switches: Any, path: tuple[str, ...], where: str) -> Iterator[NetworkNode]:
    if len(path) >= MAX_DEPTH:
        raise TopologyError(f"{where}: nested too deeply; switches may be {MAX_DEPTH} levels deep.")
    if not isinstance(switches, list):
        raise TopologyError(f"{where}: expected a list of switches, found {type(switches).__name__}.")
    described: dict[str, str] = {}
    for index, switch in enumerate(switches):
        place = f"{where}[{index}]"
        if not isinstance(switch, Mapping):
            raise TopologyError(f"{place}: expected a mapping with 'name', found {type(switch).__name__}.")
        _check_keys(switch, _SWITCH_KEYS, place)
        if "name" not in switch:
            raise TopologyError(f"{place}: missing key 'name'.")
        name = _text(switch["name"], f"{place}.name").strip()
        if name in described:
            raise TopologyError(
                f"{place}: '{name}' is described already in {described[name]}. Give its nodes and switches there."
            )
        described[name] = place
        below = (*path, name)
        yield from _nodes_of(switch, below, place)
        yield from _nodes_below(switch.get("switches") or [], below, f"{place}.switches")


def _nodes_of(switch: Mapping[str, Any], path: tuple[str, ...], where: str) -> Iterator[NetworkNode]:
    nodes = switch.get("nodes") or []
    if not isinstance(nodes, list):
        raise TopologyError(f"{where}.nodes: expected a list of nodes, found {type(nodes).__name__}.")
    for index, node in enumerate(nodes):
        place = f"{where}.nodes[{index}]"
        if isinstance(node, Mapping):
            if "path" in node:
                raise TopologyError(f"{place}: 'path' is given by the switches above; remove it.")
            yield NetworkNode.from_mapping({**node, "path": path}, place)
            continue
        for name in _expanded(node, place):
            yield NetworkNode.from_mapping({"name": name, "path": path}, place)


def _expanded(node: Any, where: str) -> list[str]:
    text = _text(node, where)
    try:
        return expand(text)
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from None


def _text(name: Any, where: str) -> str:
    """Return a name; raise TopologyError for what YAML does not read as text, as `true`, `null` or `007`."""
    if not isinstance(name, str):
        found = "nothing" if name is None else f"{name!r} ({type(name).__name__})"
        raise TopologyError(f"{where}: expected a name, found {found}. Put a name that is no text for YAML in quotes.")
    return name


def _check_keys(data: Mapping[str, Any], valid: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in valid:
            raise TopologyError(f"{where}: unknown key '{key}'. {did_you_mean(str(key), valid)}")
