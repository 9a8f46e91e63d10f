"""`NetworkNode` and `Topology`: machines, the switches above them, and how far apart they are.

The network is a tree that is stored from below: each machine names the switches between it and the spine. What one
spine does not connect is joined by an implied root, because several spines are the normal case in a cloud.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, StringConstraints, model_validator

from gnomon.errors import SpecError
from gnomon.spec._noun import FrozenMap, Noun
from gnomon.visible import visible

if TYPE_CHECKING:
    from networkx import DiGraph


def _check_host(name: str) -> str:
    if not name or not name.isprintable() or re.search(r"[\s,\[\]]", name):
        raise ValueError("a host name has no blanks, commas and brackets, no control characters, and is not empty")
    return name


SwitchName = Annotated[str, StringConstraints(min_length=1, max_length=253, strip_whitespace=True)]
HostName = Annotated[str, StringConstraints(max_length=253, strip_whitespace=True), AfterValidator(_check_host)]

NO_COMMON_SWITCH = "no common switch known"
"""Label of the implied root that joins several spines."""

UNKNOWN_ACCELERATORS = "accelerators per node unknown, as many as asked for are assumed"
"""Note of a source that does not state them."""

ROOT = ("root", "")
"""Key of the implied root in the drawn graph."""


class TopologyError(SpecError):
    """A network that is not a tree of machines, or a job that it cannot hold."""

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


class NetworkNode(Noun):
    """One machine and the switches above it."""

    name: HostName = Field(description="host name or instance id")
    path: tuple[SwitchName, ...] = Field(
        min_length=1, max_length=32, description="switches from the farthest (spine) to the nearest (leaf)"
    )
    accelerators: PositiveInt | None = Field(default=None, description="none when the source does not state them")
    rank: NonNegativeInt | None = Field(default=None, description="node rank in a running job; none when not in one")
    busy: bool = Field(default=False, description="taken by another job")
    labels: FrozenMap[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.busy and self.rank is not None:
            raise ValueError(
                f"node '{self.name}' has rank={self.rank}, so it is in the job, and busy=true, so another job has it; "
                "leave one of them out"
            )
        return self

    @property
    def is_free(self) -> bool:
        """Whether a new job can have this machine."""
        return self.rank is None and not self.busy

    def holds(self, num_ranks: int) -> bool:
        """Return whether so many ranks fit; a machine whose accelerators are unknown is trusted to have enough."""
        return self.accelerators is None or self.accelerators >= num_ranks


class Topology(Noun):
    """Machines of one network, in which every switch has one switch above it or is a spine."""

    nodes: tuple[NetworkNode, ...]
    source: str = Field(default="", description="where it was read from, and what was left out or assumed")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.nodes:
            raise ValueError("a topology needs at least one node, found none")
        _check_unique("node name", (node.name for node in self.nodes))
        _check_unique("rank", (node.rank for node in self.nodes if node.rank is not None))
        _check_is_tree(self.nodes)
        return self

    @cached_property
    def by_name(self) -> dict[str, NetworkNode]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @property
    def spines(self) -> tuple[str, ...]:
        """Names of the farthest switches, sorted; more than one means that `NO_COMMON_SWITCH` joins them."""
        return tuple(sorted({node.path[0] for node in self.nodes}))

    @property
    def free(self) -> tuple[NetworkNode, ...]:
        """Nodes that a new job can have, sorted by name."""
        return tuple(sorted((node for node in self.nodes if node.is_free), key=lambda node: node.name))

    @property
    def job(self) -> tuple[NetworkNode, ...]:
        """Nodes of the running job, by rank; raise TopologyError unless the ranks are 0, 1, ..., n - 1."""
        ranked = sorted((node for node in self.nodes if node.rank is not None), key=lambda node: node.rank or 0)
        for expected, node in enumerate(ranked):
            if node.rank != expected:
                raise TopologyError(
                    f"Node ranks must run from 0 to {len(ranked) - 1} without gaps, but no node has rank {expected} "
                    f"and '{node.name}' has rank {node.rank}."
                )
        return tuple(ranked)


def common_switches(first: NetworkNode, second: NetworkNode) -> tuple[str, ...]:
    """Return the switches above both nodes, from the farthest to the nearest; empty when no common one is known."""
    shared = 0
    for upper, lower in zip(first.path, second.path, strict=False):
        if upper != lower:
            break
        shared += 1
    return first.path[:shared]


def hops(first: NetworkNode, second: NetworkNode) -> int:
    """Return the links between two nodes: up to the nearest common switch and down again; 0 to itself.

    Nodes below different spines meet one level above the spines, at the implied root.
    """
    if first.name == second.name:
        return 0
    shared = len(common_switches(first, second))
    return len(first.path) + len(second.path) + 2 - 2 * shared


def to_networkx(topology: Topology) -> DiGraph:
    """Return the tree with edges that point downwards.

    Keys are `("switch", name)`, `("node", name)` and, above several spines, `ROOT`. Every vertex has `label` and
    `level` (links below the topmost vertex); those of machines have `node`.
    """
    from networkx import DiGraph

    graph = DiGraph()
    top: tuple[tuple[str, str], ...] = ()
    if len(topology.spines) > 1:
        top = (ROOT,)
        graph.add_node(ROOT, label=NO_COMMON_SWITCH, level=0)
    for node in topology.nodes:
        chain = (*top, *(("switch", switch) for switch in node.path))
        for level, key in enumerate(chain[len(top) :], start=len(top)):
            graph.add_node(key, label=key[1], level=level)
        graph.add_node(("node", node.name), label=node.name, level=len(chain), node=node)
        ends = (*chain, ("node", node.name))
        graph.add_edges_from(pairwise(ends))
    return graph


def _check_unique(what: str, values: Iterable[object]) -> None:
    seen: set[object] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} occurs twice; each must be unique")
        seen.add(value)


def _check_is_tree(nodes: tuple[NetworkNode, ...]) -> None:
    above: dict[str, tuple[str | None, str]] = {}
    for node in nodes:
        if len(set(node.path)) < len(node.path):
            path = visible(" > ".join(node.path))
            raise ValueError(f"the path of node '{node.name}' passes a switch twice: {path}")
        for parent, switch in zip((None, *node.path), node.path, strict=False):
            known, witness = above.setdefault(switch, (parent, node.name))
            if known != parent:
                raise ValueError(
                    f"switch '{visible(switch)}' has two parents: it is {_place(known)} for node '{witness}' and "
                    f"{_place(parent)} for node '{node.name}'. Give every switch one place in the tree"
                )


def _place(parent: str | None) -> str:
    return "a spine" if parent is None else f"below '{visible(parent)}'"
