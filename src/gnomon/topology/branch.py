"""`Branch`: the tree of switches above the free nodes, with chains of switches drawn together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby

from gnomon.topology.graph import NetworkNode


@dataclass(frozen=True, kw_only=True, eq=False)
class Branch:
    """A switch, the nodes on it and the branches below it.

    Nodes are numbered in the order of a depth-first search, so a branch holds a run of numbers. `weight` is the number
    of links to the branch above: more than one where the switches between have nothing else below them.
    """

    weight: int
    nodes: tuple[int, ...]
    children: tuple[Branch, ...]

    @cached_property
    def capacity(self) -> int:
        """Nodes in this branch."""
        return len(self.nodes) + sum(child.capacity for child in self.children)

    @cached_property
    def form(self) -> tuple[object, ...]:
        """What two branches share when one can stand for the other."""
        return (self.weight, len(self.nodes), tuple(child.form for child in self.children))


def depth_first(nodes: Sequence[NetworkNode]) -> list[NetworkNode]:
    """Return the nodes in the order of a depth-first search that visits switches and nodes by name."""
    return sorted(nodes, key=lambda node: (tuple(by_name(switch) for switch in node.path), by_name(node.name)))


@lru_cache(maxsize=2**16)
def by_name(name: str) -> tuple[tuple[tuple[bool, int, str], ...], str]:
    """Return a sort key that puts leaf2 before leaf10 and tells all names apart."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((False, int(part), "") if part[0] in "0123456789" else (True, 0, part) for part in parts), name


def build_branch(ordered: Sequence[NetworkNode]) -> Branch:
    """Return the branch above nodes in depth-first order: their nearest common switch, or the implied root."""
    return _drawn_together(_below(ordered, range(len(ordered)), 0), is_top=True)


def _below(ordered: Sequence[NetworkNode], members: Sequence[int], level: int) -> Branch:
    """Return the switch at `level`, which is above `members`; level 0 is the implied root."""
    here = tuple(index for index in members if len(ordered[index].path) == level)
    deeper = members[len(here) :]  # shorter paths sort first
    groups: Iterator[tuple[str, Iterator[int]]] = groupby(deeper, key=lambda index: ordered[index].path[level])
    children = tuple(_below(ordered, list(group), level + 1) for _, group in groups)
    return Branch(weight=1, nodes=here, children=tuple(_drawn_together(child) for child in children))


def _drawn_together(branch: Branch, is_top: bool = False) -> Branch:
    while len(branch.children) == 1 and not branch.nodes:
        child = branch.children[0]
        weight = 0 if is_top else branch.weight + child.weight
        branch = Branch(weight=weight, nodes=child.nodes, children=child.children)
    return Branch(weight=0, nodes=branch.nodes, children=branch.children) if is_top else branch
