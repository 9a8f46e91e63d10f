"""The drawing of a network as plain geometry, in pixels: spines to the left, machines to the right.

Every switch with machines on it is one row. Up to `MAX_SINGLE_NODES` machines are squares; more become one bar per
switch, and where even those are too many, one bar for everything below a switch further up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gnomon.topology.branch import by_name
from gnomon.topology.evaluate import legs
from gnomon.topology.graph import NO_COMMON_SWITCH, ROOT, NetworkNode, Topology, to_networkx
from gnomon.topology.groups import GROUP_KINDS, GroupKind, NodeGroup
from gnomon.topology.labels import short_labels, shorten
from gnomon.visible import visible

if TYPE_CHECKING:
    from networkx import DiGraph

MAX_SINGLE_NODES = 200
MAX_SWITCHES = 400
MAX_SCALE, PAGE = 1.75, (900, 600)
"""Small pictures are enlarged so many times, but not beyond these pixels."""

MAX_TRAILS = 48
"""Process groups of one kind that are drawn; more lines show nothing."""

SQUARE, GAP, PER_LINE, ROW_GAP = 20, 4, 16, 12
BAR_LENGTH, BAR_HEIGHT, BAR_GAP = 260, 15, 8
MARGIN = 16
LANE = 5
"""Pixels between the lines of process groups beside the bars; neighbouring groups have different lanes."""

STATES = {"job": "in the job (dark to light by rank)", "free": "free", "busy": "taken by another job"}
STATE_COLOURS = {"job": "#1d5f99", "free": "#009e73", "busy": "#9aa3ad"}
TEXT_COLOURS = {"job": "#ffffff", "free": "#ffffff", "busy": "#1c2128"}
FIRST_RANK, LAST_RANK = (8, 48, 92), (88, 160, 214)
TRAIL_COLOURS = ("#d55e00", "#cc79a7", "#e69f00", "#7b4fb5", "#a02c2c", "#b5a400", "#c04f9d", "#8c564b")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A machine, or a run of machines in the same state."""

    x: float
    y: float
    width: float
    height: float
    state: str
    colour: str
    text: str
    hover: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SwitchMark:
    """A switch; `label` is short, `hover` complete."""

    x: float
    y: float
    label: str
    hover: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trail:
    """The legs of one process group as curves (x0, y0, control x, control y, x1, y1)."""

    kind: GroupKind
    label: str
    colour: str
    curves: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Everything that is drawn, in pixels from the top left."""

    width: float
    height: float
    switches: tuple[SwitchMark, ...]
    links: tuple[tuple[tuple[float, float], ...], ...]
    marks: tuple[Mark, ...]
    trails: tuple[Trail, ...]
    notes: tuple[str, ...]
    single: bool
    """Whether each mark is one machine."""
    start_x: float
    """Where to look first: the first machine of the job, or else the left edge of the machines."""

    @property
    def scale(self) -> float:
        """How many times larger a small picture is shown."""
        return max(1.0, min(MAX_SCALE, PAGE[0] / self.width, PAGE[1] / self.height))


def draw_picture(topology: Topology, groups: Mapping[GroupKind, Sequence[NodeGroup]] | None = None) -> Picture:
    """Return the picture; `groups` are the process groups to draw between the machines of the job."""
    return _Draft(topology).finished(groups or {})


def state_of(node: NetworkNode) -> str:
    """Return `job`, `busy` or `free`."""
    return "job" if node.rank is not None else "busy" if node.busy else "free"


@dataclass
class _Draft:
    topology: Topology
    switches: list[SwitchMark] = field(default_factory=list)
    links: list[tuple[tuple[float, float], ...]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    places: dict[str, tuple[float, float]] = field(default_factory=dict)
    bottom: float = MARGIN

    def __post_init__(self) -> None:
        self.graph: DiGraph = to_networkx(self.topology)
        self.last_rank = max((node.rank or 0 for node in self.topology.nodes), default=0)
        self.single = len(self.topology.nodes) <= MAX_SINGLE_NODES
        self.row_gap = ROW_GAP if self.single else BAR_GAP
        self.deepest = self._deepest_level()
        self.labels = self._labels()
        self.column = 34 + 6.5 * max(map(len, self.labels.values()))
        self.rows_x = MARGIN + self.column * (self.deepest + 1)
        self.largest = max(len(self._machines(key)) for key in self.graph if self._is_row(key))
        self._place(next(key for key, degree in self.graph.in_degree() if degree == 0))

    def finished(self, groups: Mapping[GroupKind, Sequence[NodeGroup]]) -> Picture:
        trails = [trail for kind, members in groups.items() for trail in self._trails(kind, members)]
        right = [mark.x + mark.width for mark in self.marks]
        right += [(x0 + 2 * cx + x1) / 4 for trail in trails for x0, _, cx, _, x1, _ in trail.curves]
        return Picture(
            width=max(right) + MARGIN,
            height=self.bottom + MARGIN - self.row_gap,
            switches=tuple(self.switches),
            links=tuple(self.links),
            marks=tuple(self.marks),
            trails=tuple(trails),
            notes=tuple(self._notes(groups)),
            single=self.single,
            start_x=self._start_x(),
        )

    def _start_x(self) -> float:
        first = next((node.name for node in self.topology.nodes if node.rank == 0), None)
        return self.places[first][0] if first and self.single else self.rows_x

    def _labels(self) -> dict[tuple[str, str], str]:
        """Return the label of each switch, unlike those of the switches beside it."""
        labels = {ROOT: shorten("no common switch")}
        root = next(key for key, degree in self.graph.in_degree() if degree == 0)
        for siblings in ([root], *(self._below(key, "switch") for key in self.graph if key[0] != "node")):
            names = short_labels([name for _, name in siblings])
            labels |= {key: visible(names[key[1]]) for key in siblings if key != ROOT}
        return labels

    def _notes(self, groups: Mapping[GroupKind, Sequence[NodeGroup]]) -> Iterable[str]:
        if not self.single:
            yield f"More than {MAX_SINGLE_NODES} nodes, so each bar stands for all nodes below one switch."
        for kind, members in groups.items():
            if sum(len(group.node_ranks) > 1 for group in members) > MAX_TRAILS:
                yield f"Only the first {MAX_TRAILS} {GROUP_KINDS[kind]} groups are drawn."

    def _deepest_level(self) -> int:
        """Return the level of the deepest switches that are drawn."""
        levels = [data["level"] for key, data in self.graph.nodes(data=True) if key[0] != "node"]
        if self.single:
            return int(max(levels))
        drawn = [sum(level <= limit for level in levels) for limit in range(max(levels) + 1)]
        return max((limit for limit, count in enumerate(drawn) if count <= MAX_SWITCHES), default=0)

    def _below(self, key: tuple[str, str], kind: str) -> list[tuple[str, str]]:
        found = [child for child in self.graph.successors(key) if (child[0] == "node") == (kind == "node")]
        return sorted(found, key=lambda child: by_name(child[1]))

    def _is_row(self, key: tuple[str, str]) -> bool:
        level = self.graph.nodes[key]["level"]
        return key[0] != "node" and (level == self.deepest or (level < self.deepest and bool(self._below(key, "node"))))

    def _machines(self, key: tuple[str, str]) -> list[NetworkNode]:
        from networkx import descendants

        below = self._below(key, "node")
        if self.graph.nodes[key]["level"] == self.deepest:
            below = sorted((k for k in descendants(self.graph, key) if k[0] == "node"), key=lambda k: by_name(k[1]))
        return [self.graph.nodes[child]["node"] for child in below]

    def _place(self, key: tuple[str, str]) -> float:
        """Place a switch and everything below it; return its height on the page."""
        data = self.graph.nodes[key]
        x = MARGIN + self.column * data["level"] + 6
        ends: list[tuple[float, float]] = []
        if self._is_row(key):
            ends.append((self.rows_x - 6, self._row(key)))
        if data["level"] < self.deepest:
            ends.extend((x + self.column, self._place(child)) for child in self._below(key, "switch"))
        y = (ends[0][1] + ends[-1][1]) / 2
        for end_x, end_y in ends:
            bend = min(x + self.column, end_x) - 12
            self.links.append(((x, y), (bend, y), (bend, end_y), (end_x, end_y)))
        hover = tuple(map(visible, self._switch_hover(key)))
        self.switches.append(SwitchMark(x=x, y=y, label=self.labels[key], hover=hover))
        return y

    def _switch_hover(self, key: tuple[str, str]) -> tuple[str, ...]:
        from networkx import descendants

        machines = [self.graph.nodes[k]["node"] for k in descendants(self.graph, key) if k[0] == "node"]
        name = NO_COMMON_SWITCH if key == ROOT else key[1]
        return (name, f"{len(machines)} nodes below", *_counts(machines))

    def _row(self, key: tuple[str, str]) -> float:
        machines, top = self._machines(key), self.bottom
        if self.single:
            lines = -(-len(machines) // PER_LINE)
            for index, node in enumerate(machines):
                self._square(node, index % PER_LINE, top + index // PER_LINE * (SQUARE + GAP))
            height = lines * (SQUARE + GAP) - GAP
        else:
            self._bar(key, machines, top)
            height = BAR_HEIGHT
        self.bottom = top + height + self.row_gap
        return top + height / 2

    def _square(self, node: NetworkNode, place: int, y: float) -> None:
        x, state = self.rows_x + place * (SQUARE + GAP), state_of(node)
        colour = self._rank_colour(node.rank) if node.rank is not None else STATE_COLOURS[state]
        text = "" if node.rank is None else str(node.rank)
        self._mark((x, y, SQUARE, SQUARE), state, colour, text, _node_hover(node))
        self.places[node.name] = (x + SQUARE / 2, y + SQUARE / 2)

    def _bar(self, key: tuple[str, str], machines: Sequence[NetworkNode], y: float) -> None:
        x = float(self.rows_x)
        for state in STATES:
            members = [node for node in machines if state_of(node) == state]
            if not members:
                continue
            width = BAR_LENGTH * len(members) / self.largest
            ranks = [node.rank for node in members if node.rank is not None]
            colour = self._rank_colour(sum(ranks) // len(ranks)) if ranks else STATE_COLOURS[state]
            hover: tuple[str, ...] = (
                f"below {key[1] or NO_COMMON_SWITCH}",
                f"{len(members)} {STATES[state].split(' (')[0]}",
            )
            hover += (f"node ranks {_ranges(sorted(ranks))}",) if ranks else ()
            self._mark((x, y, width, BAR_HEIGHT), state, colour, str(len(members)) if width >= 24 else "", hover)
            for node in members:  # groups run beside the bars, where they cover nothing
                self.places[node.name] = (self.rows_x + BAR_LENGTH + 2 * LANE, y + BAR_HEIGHT / 2)
            x += width

    def _mark(
        self, box: tuple[float, float, float, float], state: str, colour: str, text: str, hover: tuple[str, ...]
    ) -> None:
        x, y, width, height = box
        shown = tuple(map(visible, hover))
        mark = Mark(x=x, y=y, width=width, height=height, state=state, colour=colour, text=text, hover=shown)
        self.marks.append(mark)

    def _rank_colour(self, rank: int) -> str:
        share = rank / self.last_rank if self.last_rank else 0.0
        return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(FIRST_RANK, LAST_RANK, strict=True))

    def _trails(self, kind: GroupKind, groups: Sequence[NodeGroup]) -> Iterable[Trail]:
        job = self.topology.job
        shown = [group for group in groups if len(group.node_ranks) > 1][:MAX_TRAILS]
        for index, group in enumerate(shown):
            ends = [(self.places[job[a].name], self.places[job[b].name]) for a, b in legs(group)]
            lane = 0 if self.single else LANE * (index % len(TRAIL_COLOURS))
            curves = dict.fromkeys(
                _curve(start, end) if self.single else _arc(start, end, lane) for start, end in ends if start != end
            )
            copies = f" (and {group.copies - 1} alike)" if group.copies > 1 else ""
            yield Trail(
                kind=kind,
                label=(group.label or GROUP_KINDS[kind]) + copies,
                colour=TRAIL_COLOURS[index % len(TRAIL_COLOURS)],
                curves=tuple(curves),
            )


def _curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, ...]:
    """Return a curve between the edges of two squares that leaves the texts in them free."""
    (x0, y0), (x1, y1) = start, end
    if y0 == y1:
        edge = y0 + SQUARE / 2 - 3
        return (x0, edge, (x0 + x1) / 2, edge + min(24, 8 + abs(x1 - x0) / 20), x1, edge)
    edge = (SQUARE / 2 - 3) * (1 if y1 > y0 else -1)
    return (x0, y0 + edge, max(x0, x1) + min(90.0, 12 + abs(y1 - y0) / 4), (y0 + y1) / 2, x1, y1 - edge)


def _arc(start: tuple[float, float], end: tuple[float, float], lane: float) -> tuple[float, ...]:
    """Return a curve beside the bars, from one row to another; farther rows reach further out."""
    (x, y0), (_, y1) = start, end
    x += lane
    return (x, y0, x + min(160.0, 8 + abs(y1 - y0) / 3), (y0 + y1) / 2, x, y1)


def _node_hover(node: NetworkNode) -> tuple[str, ...]:
    state = f"node rank {node.rank}" if node.rank is not None else STATES[state_of(node)]
    labels = (f"{key}: {value}" for key, value in sorted(node.labels.items())[:6])
    accelerators = f"{node.accelerators or 'unknown number of'} accelerators"
    return (node.name, state, accelerators, " > ".join(node.path), *labels)


def _counts(machines: Sequence[NetworkNode]) -> tuple[str, ...]:
    counts = {state: sum(state_of(node) == state for node in machines) for state in STATES}
    return tuple(f"{count} {STATES[state].split(' (')[0]}" for state, count in counts.items() if count)


def _ranges(ranks: Sequence[int]) -> str:
    """Return `0-7, 16` for ascending ranks, cut after six ranges."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs]
    return ", ".join(texts[:6]) + (", ..." if len(texts) > 6 else "")
