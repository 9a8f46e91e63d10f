"""What SLURM says about nodes: how many GPUs they have and whether a new job can have them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gnomon.topology.graph import TopologyError
from gnomon.topology.sources.hostlist import expand

_GPU = re.compile(r"(?:^|,)gpu(?::[^,:()]+)*?(?::([0-9]+))?(?=[,(]|$)")

_HARMLESS_FLAGS = {"CLOUD", "POWERED_DOWN", "DYNAMIC_NORM", "DYNAMIC_FUTURE"}
"""State flags of a node that SLURM starts for the next job."""


@dataclass(frozen=True)
class SlurmNode:
    """A node as `scontrol show node --details` prints it."""

    name: str
    gpus: int
    is_free: bool


def count_gpus(gres: str) -> int:
    """Return the GPUs in a Gres text: `gpu:h100:4(S:0-1),nvme:1` has 4, `gpu` has 1, `(null)` none."""
    return sum(int(match[1] or 1) for match in _GPU.finditer(gres))


def parse_node_gres(text: str) -> dict[str, int]:
    """Return GPUs by node from the NodeName lines of slurm.conf, or of `scontrol show node --oneliner`.

    A line `NodeName=DEFAULT` sets the Gres of the lines after it, as slurm.conf(5) says.
    """
    gpus: dict[str, int] = {}
    default = ""
    for line in text.replace("\\\n", " ").splitlines():
        hostlist = field(line, "NodeName")
        if hostlist is None or line.lstrip().startswith("#"):
            continue
        gres = field(line, "Gres")
        if hostlist.upper() == "DEFAULT":
            default = gres or default
            continue
        gpus.update(dict.fromkeys(expand(hostlist), count_gpus(gres or default)))
    if not gpus:
        raise TopologyError("No line starts with NodeName=; give slurm.conf or the output of scontrol show node.")
    return gpus


def parse_scontrol_nodes(text: str) -> dict[str, SlurmNode]:
    """Return the nodes of `scontrol show node --details --oneliner` by name."""
    nodes: dict[str, SlurmNode] = {}
    for line in text.splitlines():
        name = field(line, "NodeName")
        if name:
            used = count_gpus(field(line, "GresUsed") or "")
            nodes[name] = SlurmNode(name, count_gpus(field(line, "Gres") or ""), _is_free(field(line, "State"), used))
    return nodes


def field(line: str, key: str) -> str | None:
    """Return the value of `key` in a line of `Key=Value` pairs, or None; other values may contain blanks."""
    match = re.search(rf"(?:^|\s){key}=(\S*)", line, flags=re.IGNORECASE)
    return match[1] if match else None


def _is_free(state: str | None, used_gpus: int) -> bool:
    base, *flags = (state or "UNKNOWN").upper().split("+")
    # an asterisk marks a node that does not answer; a mixed node may have lent CPUs only
    usable = base == "IDLE" or (base == "MIXED" and used_gpus == 0)
    return usable and set(flags) <= _HARMLESS_FLAGS
