"""Distances and placements as rich tables."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gnomon.topology.assign import Assignment
from gnomon.topology.draw import COLUMNS, distance_cells
from gnomon.topology.evaluate import KindDistance, PlacementEvaluation
from gnomon.topology.graph import NO_COMMON_SWITCH, Topology
from gnomon.topology.groups import GROUP_KINDS
from gnomon.topology.sources.hostlist import compress
from gnomon.visible import visible

MAX_GROUPS = 16
MAX_ROWS = 128
"""With more nodes, the ranks that follow each other below one switch are one row."""


def render_evaluation(evaluation: PlacementEvaluation) -> RenderableType:
    """Return the distances by kind, the data-parallel rings, the busiest link of each level, and the source."""
    source = [Text(describe_source(evaluation.source))] if evaluation.source else []
    if not evaluation.kinds:
        return Group(Text("No process group leaves its node, so nothing crosses the network."), *source)
    table = _table("Hops of the process groups", COLUMNS)
    for distance in evaluation.kinds:
        table.add_row(*distance_cells(distance))
    parts: list[RenderableType] = [table]
    rings = evaluation.kind("dp")
    if rings is not None:
        parts.append(_ring_table(rings))
    parts.append(_link_table(evaluation))
    if len(evaluation.spines) > 1:
        parts.append(Text(f"The {len(evaluation.spines)} spines have {NO_COMMON_SWITCH}; one is counted above them."))
    return Group(*parts, *source)


def describe_source(source: str) -> str:
    """Return one line that says where the network was read from, and what was left out or assumed."""
    return f"Network: {visible(source)}"


def render_assignment(assignment: Assignment, topology: Topology) -> RenderableType:
    """Return the nodes in rank order with their switches, the distances, and how good they are."""
    names = assignment.node_names
    paths = [topology.by_name[name].path for name in names]
    runs = [(rank, rank + 1) for rank in range(len(names))] if len(names) <= MAX_ROWS else _runs(paths)
    table = _table("Nodes in the order of ranks", ("node rank", "node", "switches, from the spine"), numeric=(0,))
    for start, end in runs:
        ranks = str(start) if end == start + 1 else f"{start}-{end - 1}"
        table.add_row(ranks, Text(compress(names[start:end])), Text(visible(" > ".join(paths[start]))))
    return Group(table, render_evaluation(assignment.evaluation), Text(verdict(assignment)))


def _runs(paths: Sequence[tuple[str, ...]]) -> list[tuple[int, int]]:
    """Return the first rank of each run of ranks below one switch, and the rank after it."""
    starts = [0, *(rank for rank in range(1, len(paths)) if paths[rank] != paths[rank - 1]), len(paths)]
    return list(pairwise(starts))


def verdict(assignment: Assignment) -> str:
    """Return one sentence that says how good the placement is."""
    if assignment.ring_hops == 0:
        return "No data-parallel ring leaves its node; the nodes are those that are nearest together."
    rings = f"The data-parallel rings have {assignment.ring_hops} hops (rings on the same nodes counted once)"
    if assignment.is_optimal:
        return f"{rings}, the fewest possible on the free nodes."
    gap = assignment.ring_hops / assignment.lower_bound_hops - 1
    return f"{rings}; at least {assignment.lower_bound_hops} are needed, so at most {100 * gap:.1f}% could be saved."


def _ring_table(rings: KindDistance) -> Table:
    title = "Data-parallel rings"
    if len(rings.groups) > MAX_GROUPS:
        title += f" (first {MAX_GROUPS} of {len(rings.groups)}, --json has all)"
    table = _table(title, ("ring", "alike", "nodes", "hops", "ideal", "mean hop", "worst hop"))
    for item in rings.groups[:MAX_GROUPS]:
        label = item.group.label or "all"
        counts = (item.group.copies, len(item.group.node_ranks), item.total_hops, item.ideal_hops)
        table.add_row(label, *map(str, counts), f"{item.mean_hops:.2f}", str(item.worst_hops))
    return table


def _link_table(evaluation: PlacementEvaluation) -> Table:
    table = _table("Links that most groups cross", ("process groups", "level", "link", "groups"), numeric=(1, 3))
    for distance in evaluation.kinds:
        for load in distance.busiest_links:
            table.add_row(GROUP_KINDS[distance.kind], str(load.level), Text(visible(load.link)), str(load.groups))
    return table


def _table(title: str, columns: tuple[str, ...], numeric: tuple[int, ...] | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        is_number = index > 0 if numeric is None else index in numeric
        table.add_column(name, justify="right" if is_number else "left")
    return table
