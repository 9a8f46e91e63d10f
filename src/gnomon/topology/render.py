"""Distances and placements as rich tables."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gnomon.topology.assign import Assignment
from gnomon.topology.draw import COLUMNS, distance_cells
from gnomon.topology.evaluate import KindDistance, PlacementEvaluation
from gnomon.topology.graph import NO_COMMON_SWITCH, Topology
from gnomon.topology.groups import GROUP_KINDS

MAX_GROUPS = 16


def render_evaluation(evaluation: PlacementEvaluation) -> RenderableType:
    """Return the distances by kind, the data-parallel rings and the busiest link of each level."""
    if not evaluation.kinds:
        return Text("No process group leaves its node, so nothing crosses the network.")
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
    return Group(*parts)


def render_assignment(assignment: Assignment, topology: Topology) -> RenderableType:
    """Return the nodes in rank order with their switches, the distances, and how good they are."""
    table = _table("Nodes in the order of ranks", ("node rank", "node", "switches, from the spine"), numeric=(0,))
    for rank, name in enumerate(assignment.node_names):
        table.add_row(str(rank), Text(name), Text(" > ".join(topology.by_name[name].path)))
    return Group(table, render_evaluation(assignment.evaluation), Text(verdict(assignment)))


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
            table.add_row(GROUP_KINDS[distance.kind], str(load.level), Text(load.link), str(load.groups))
    return table


def _table(title: str, columns: tuple[str, ...], numeric: tuple[int, ...] | None = None) -> Table:
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(columns):
        is_number = index > 0 if numeric is None else index in numeric
        table.add_column(name, justify="right" if is_number else "left")
    return table
