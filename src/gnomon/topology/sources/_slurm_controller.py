"""What the SLURM controller says through scontrol: switches, nodes, jobs."""

from __future__ import annotations

import os
import re
import subprocess

from gnomon.topology.graph import UNKNOWN_ACCELERATORS, Topology, TopologyError
from gnomon.topology.sources._errors import TopologySourceError
from gnomon.topology.sources._slurm_nodes import field, parse_scontrol_nodes
from gnomon.topology.sources._slurm_records import read_numbers, read_records
from gnomon.topology.sources._slurm_switches import Paths, Switch, block_paths, read_switch, tree_paths
from gnomon.topology.sources.hostlist import expand

TREE_KEYS = ("SwitchName", "Level", "LinkSpeed", "Nodes", "Switches")
BLOCK_KEYS = ("BlockName", "AggregatedBlock", "BlockIndex", "BlockSize")

_ABSENT = re.compile(r"(?<!\S)[A-Za-z]+=(\(null\))?(?!\S)")
"""How scontrol prints what a switch does not have."""


def read_scontrol(job_id: str | None = None, timeout_s: float = 30.0) -> Topology:
    """Ask the SLURM controller for its topology, the GPUs and state of its nodes and the nodes of the job `job_id`.

    The nodes of the job get their SLURM_NODEID as rank; nodes without a GPU are left out, unless the job runs on them
    or no node has one: then accelerators are unknown, and `source` says so. Raises TopologySourceError where SLURM is
    not installed, does not answer or has no switches.
    """
    source = "scontrol show topology"
    paths = scontrol_paths(_scontrol(["show", "topology"], timeout_s), source)
    known = parse_scontrol_nodes(_scontrol(["show", "node", "--details", "--oneliner"], timeout_s))
    job = _job_nodes(job_id, timeout_s)
    outside = [name for name in job if name not in paths]
    if outside:
        raise TopologyError(f"Node '{outside[0]}' of job {job_id} is below no switch of {source}.")
    has_gpus = any(known[name].gpus for name in paths if name in known)
    nodes: list[dict[str, object]] = []
    for name, path in paths.items():
        node = known.get(name)
        gpus = node.gpus if node else 0
        if has_gpus and not gpus and name not in job:
            continue
        rank = job.index(name) if name in job else None
        busy = rank is None and not (node and node.is_free)
        accelerators = max(gpus, 1) if has_gpus else None
        nodes.append({"name": name, "path": path, "accelerators": accelerators, "rank": rank, "busy": busy})
    source += "" if has_gpus else f" (no node lists a GPU; {UNKNOWN_ACCELERATORS})"
    return Topology.from_mapping({"nodes": nodes, "source": source}, where=source)


def scontrol_paths(text: str, source: str) -> Paths:
    """Return the path of each node in the output of `scontrol show topology`, of a tree or of blocks."""
    records = list(read_records(_ABSENT.sub("", text), TREE_KEYS + BLOCK_KEYS, source))
    blocks = [read_switch(record, "BlockName") for record in records if "BlockName" in record.values]
    if blocks:
        sizes = {size for record in records for size in read_numbers(record, "BlockSize")}
        return block_paths(blocks, sorted(sizes), source)
    return tree_paths(_direct([read_switch(record, "SwitchName") for record in records]), source)


def _direct(switches: list[Switch]) -> list[Switch]:
    """Keep only the nodes directly below each switch; scontrol lists those below its child switches again."""
    nodes = {switch.name: set(switch.nodes) for switch in switches}
    direct = []
    for switch in switches:
        below = {node for child in switch.switches for node in nodes.get(child, ())}
        own = tuple(node for node in switch.nodes if node not in below)
        direct.append(Switch(switch.name, own, switch.switches, switch.where))
    return direct


def _job_nodes(job_id: str | None, timeout_s: float) -> list[str]:
    if job_id is None:
        return []
    if not job_id[:1].isdigit():
        raise TopologyError(f"'{job_id}' is no SLURM job id; expected a number such as 4711 or 4711_3.")
    lines = _scontrol(["show", "job", job_id, "--oneliner"], timeout_s).splitlines()
    running = [nodes for line in lines if (nodes := field(line, "NodeList")) and nodes != "(null)"]
    if not running:
        raise TopologySourceError(f"Job {job_id} has no nodes: it is waiting or over.")
    if len(running) > 1:
        raise TopologyError(f"Job {job_id} has {len(running)} running parts. Name one of them, such as {job_id}_0.")
    return expand(running[0])


def _scontrol(arguments: list[str], timeout_s: float) -> str:
    command = " ".join(["scontrol", *arguments])
    # SLURM_TOPO_LEN would cut the lines
    environment = {key: value for key, value in os.environ.items() if key != "SLURM_TOPO_LEN"}
    try:
        result = subprocess.run(
            ["scontrol", *arguments], capture_output=True, text=True, timeout=timeout_s, env=environment, check=False
        )
    except FileNotFoundError:
        raise TopologySourceError(
            "SLURM is not installed here: the command scontrol is not found. Run this on a node of the cluster, or "
            "give its topology.conf or the output of 'scontrol show topology' as a file."
        ) from None
    except subprocess.TimeoutExpired:
        raise TopologySourceError(f"'{command}' gave no answer in {timeout_s:g} s. Is slurmctld up?") from None
    if result.returncode or not result.stdout.strip():  # without a controller or switches it prints nothing, exits 0
        reason = " ".join(result.stderr.split()) or "nothing was printed"
        hint = " Set TopologyPlugin=topology/tree in slurm.conf." if "No topology information" in reason else ""
        raise TopologySourceError(f"'{command}' failed: {reason}.{hint}")
    return result.stdout
