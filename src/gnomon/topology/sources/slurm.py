"""SLURM: topology.conf, topology.yaml and what a running controller says.

Trees (topology/tree) keep their switches; blocks (topology/block) become switches, with the aggregated blocks of
BlockSizes above them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from gnomon.topology.graph import UNKNOWN_ACCELERATORS, Topology, TopologyError
from gnomon.topology.sources._slurm_controller import read_scontrol, scontrol_paths
from gnomon.topology.sources._slurm_nodes import parse_node_gres
from gnomon.topology.sources._slurm_records import Record, read_numbers, read_records
from gnomon.topology.sources._slurm_switches import Paths, block_paths, read_switch, tree_paths
from gnomon.topology.sources._slurm_yaml import read_yaml_paths

__all__ = [
    "parse_node_gres",
    "parse_scontrol_topology",
    "parse_text",
    "parse_topology_conf",
    "parse_topology_yaml",
    "read_scontrol",
]

CONF_KEYS = ("SwitchName", "Switches", "Nodes", "LinkSpeed", "BlockName", "BlockSizes", "RingName")


def parse_topology_conf(
    text: str, node_gres: Mapping[str, int] | None = None, source: str = "topology.conf"
) -> Topology:
    """Return the topology in a topology.conf of topology/tree or topology/block.

    `node_gres` are the GPUs of each node (see `parse_node_gres`); without it they are unknown, and `source` says so.
    Raises TopologyError with the line for unknown keys and switches, cycles, and nodes below two leaves.
    """
    records = list(read_records(text, CONF_KEYS, source))
    _refuse_rings(records)
    switches = [read_switch(record, "SwitchName") for record in records if "SwitchName" in record.values]
    blocks = [read_switch(record, "BlockName") for record in records if "BlockName" in record.values]
    if switches and blocks:
        raise TopologyError(
            f"{blocks[0].where}: blocks and switches in one file. Keep topology/tree or topology/block."
        )
    sizes = [size for record in records for size in read_numbers(record, "BlockSizes")]
    named = {"SwitchName", "BlockName", "BlockSizes"}
    nameless = next((record for record in records if not named & record.values.keys()), None)
    if nameless:
        raise TopologyError(f"{nameless.where}: the line has no SwitchName, BlockName or BlockSizes.")
    paths = block_paths(blocks, sizes, source) if blocks else tree_paths(switches, source)
    return _topology(paths, node_gres, source)


def parse_topology_yaml(
    text: str, name: str | None = None, node_gres: Mapping[str, int] | None = None, source: str = "topology.yaml"
) -> Topology:
    """Return the topology `name` of a topology.yaml (SLURM 25.05), by default the one with `cluster_default: true`."""
    return _topology(read_yaml_paths(text, name, source), node_gres, source)


def parse_scontrol_topology(
    text: str, node_gres: Mapping[str, int] | None = None, source: str = "scontrol show topology"
) -> Topology:
    """Return the topology in the whole output of `scontrol show topology`."""
    return _topology(scontrol_paths(text, source), node_gres, source)


def parse_text(text: str, source: str, is_yaml: bool) -> Topology:
    """Return the topology in a topology.yaml, a topology.conf or the saved output of `scontrol show topology`."""
    if is_yaml:
        return parse_topology_yaml(text, source=source)
    # only the controller numbers levels and blocks
    is_output = re.search(r"^\s*(SwitchName=\S+\s+Level=|BlockName=\S+\s+BlockIndex=|AggregatedBlock=)", text, re.M)
    return parse_scontrol_topology(text, source=source) if is_output else parse_topology_conf(text, source=source)


def _topology(paths: Paths, node_gres: Mapping[str, int] | None, source: str) -> Topology:
    if node_gres is None:
        bare = [{"name": name, "path": path} for name, path in paths.items()]
        return Topology.from_mapping({"nodes": bare, "source": f"{source} ({UNKNOWN_ACCELERATORS})"}, where=source)
    missing = [name for name in paths if name not in node_gres]
    if missing:
        raise TopologyError(f"{source}: the number of GPUs of node '{missing[0]}' is not given.")
    nodes = [
        {"name": name, "path": path, "accelerators": node_gres[name]} for name, path in paths.items() if node_gres[name]
    ]
    if not nodes:
        raise TopologyError(f"{source}: none of its {len(paths)} nodes has a GPU.")
    return Topology.from_mapping({"nodes": nodes, "source": source}, where=source)


def _refuse_rings(records: list[Record]) -> None:
    for record in records:
        if "RingName" in record.values:
            raise TopologyError(f"{record.where}: topology/ring has no switches; only tree and block are read.")
