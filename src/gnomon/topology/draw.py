"""The picture of a network as an SVG, and as one HTML file that needs no network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gnomon.plotly_script import plotly_script
from gnomon.topology.evaluate import KindDistance, PlacementEvaluation
from gnomon.topology.graph import Topology
from gnomon.topology.groups import GROUP_KINDS, GroupKind, NodeGroup, process_groups
from gnomon.topology.picture import MARGIN, STATE_COLOURS, STATES, TEXT_COLOURS, Picture, draw_picture, state_of
from gnomon.visible import visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from plotly.graph_objects import Figure

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
COLUMNS = ("process groups", "number", "hops", "ideal", "mean hop", "worst hop", "groups at a link")
LEGEND_PX = {"job": 230, "free": 60, "busy": 150}
CURVE_STEPS = 24
TOOLBAR_PX = 30
"""Room above the drawing, where Plotly's buttons would otherwise cover what one wants to point at."""


def render_svg(topology: Topology, evaluation: PlacementEvaluation | None = None, kind: GroupKind = "dp") -> str:
    """Return the network as an SVG image; with an evaluation of its job, with the groups of one kind."""
    groups = {kind: _groups(evaluation).get(kind, ())} if evaluation else {}
    picture = draw_picture(topology, groups)
    states = _states(topology)
    starts = [MARGIN + sum(LEGEND_PX[state] for state in states[:index]) for index in range(len(states))]
    title, offset = _title(topology), 60 + 18 * len(picture.notes)
    return (
        _environment()
        .get_template("topology.svg.j2")
        .render(
            picture=picture,
            title=title,
            margin=MARGIN,
            offset=offset,
            scale=picture.scale,
            text_colours=TEXT_COLOURS,
            width=round(max(picture.width, 2 * MARGIN + 9 * len(title), starts[-1] + LEGEND_PX[states[-1]])),
            height=round(picture.height + offset),
            legend=[
                {"x": x, "y": 46, "label": STATES[s], "colour": STATE_COLOURS[s]}
                for x, s in zip(starts, states, strict=True)
            ],
            notes=[{"y": 64 + 18 * index, "text": text} for index, text in enumerate(picture.notes)],
        )
    )


def render_html(topology: Topology, evaluation: PlacementEvaluation | None = None, kind: GroupKind = "dp") -> str:
    """Return the network as a page with plotly.js inside it; with an evaluation of its job, with all its groups.

    Names are escaped, for HTML and for the tags that Plotly understands; the figure travels as JSON that cannot end
    its script element.
    """
    groups = _groups(evaluation)
    picture = draw_picture(topology, groups)
    figure = json.loads(_figure(picture).to_json())
    return (
        _environment()
        .get_template("topology.html.j2")
        .render(
            title=_title(topology),
            facts=_facts(topology),
            columns=COLUMNS,
            rows=[distance_cells(distance) for distance in evaluation.kinds] if evaluation else [],
            kinds=[(name, GROUP_KINDS[name]) for name in groups],
            shown=kind,
            legend=[(STATES[state], STATE_COLOURS[state]) for state in _states(topology)],
            notes=picture.notes,
            nodes=[_row(node) for node in topology.nodes],
            width=round(picture.width * picture.scale),
            height=round(picture.height * picture.scale) + TOOLBAR_PX,
            start=round(picture.start_x * picture.scale),
            figure=figure,
            plotly_js=plotly_script(),
        )
    )


def distance_cells(distance: KindDistance) -> tuple[str, ...]:
    """Return the distances of one kind of process group as texts, in the order of `COLUMNS`."""
    busiest = max((load.groups for load in distance.busiest_links), default=0)
    return (
        GROUP_KINDS[distance.kind],
        f"{distance.num_groups}",
        f"{distance.total_hops}",
        f"{distance.ideal_hops}",
        f"{distance.mean_hops:.2f}",
        f"{distance.worst_hops}",
        f"{busiest}",
    )


def _groups(evaluation: PlacementEvaluation | None) -> Mapping[GroupKind, Sequence[NodeGroup]]:
    if evaluation is None:
        return {}
    groups = process_groups(evaluation.layout, evaluation.accelerators_per_node)
    return {distance.kind: groups[distance.kind] for distance in evaluation.kinds}


def _title(topology: Topology) -> str:
    return visible(topology.source) or "Network"


def _states(topology: Topology) -> list[str]:
    present = {state_of(node) for node in topology.nodes}
    return [state for state in STATES if state in present]


def _facts(topology: Topology) -> list[tuple[str, str]]:
    counts = [state_of(node) for node in topology.nodes]
    switches = {switch for node in topology.nodes for switch in node.path}
    facts = [("Nodes", str(len(counts))), ("Switches", str(len(switches))), ("Spines", str(len(topology.spines)))]
    names = {"job": "In the job", "free": "Free", "busy": "Taken"}
    return facts + [(names[state], str(counts.count(state))) for state in _states(topology)]


def _row(node: Any) -> dict[str, str]:
    state = f"node rank {node.rank}" if node.rank is not None else STATES[state_of(node)]
    return {
        "name": node.name,
        "state": state,
        "accelerators": str(node.accelerators or "unknown"),
        "path": visible(" > ".join(node.path)),
    }


def _figure(picture: Picture) -> Figure:
    from plotly.graph_objects import Figure, Scatter

    figure, scale = Figure(), picture.scale
    figure.update_layout(
        template="none",
        width=round(picture.width * scale),
        height=round(picture.height * scale) + TOOLBAR_PX,
        margin={"l": 0, "r": 0, "t": TOOLBAR_PX, "b": 0},
        font={"family": FONT, "size": 11 * scale},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"font": {"family": FONT, "size": 13}, "align": "left"},
        hovermode="closest",
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#7a848f", "activecolor": "#1d5f99"},
        showlegend=False,
    )
    figure.update_xaxes(visible=False, range=[0, picture.width])
    figure.update_yaxes(visible=False, range=[picture.height, 0])
    figure.add_trace(_lines(picture.links, color="#aeb6bf", width=1, meta={"link": True}))
    figure.add_trace(_squares(picture))
    for trail in picture.trails:
        points = [_sampled(curve) for curve in trail.curves]
        meta = {"kind": trail.kind, "label": trail.label}
        figure.add_trace(_lines(points, color=trail.colour, width=1.8 * scale, meta=meta))
    figure.add_trace(_texts(picture))
    figure.add_trace(
        Scatter(
            x=[switch.x for switch in picture.switches],
            y=[switch.y for switch in picture.switches],
            mode="markers",
            marker={"size": 9 * scale, "color": "#7a848f"},
            hovertext=[_hover(switch.hover) for switch in picture.switches],
            hovertemplate="%{hovertext}<extra></extra>",
        )
    )
    figure.add_trace(
        Scatter(
            x=[switch.x + 7 for switch in picture.switches],
            y=[switch.y - 9 for switch in picture.switches],
            mode="text",
            text=[html.escape(switch.label) for switch in picture.switches],
            textposition="middle right",
            hoverinfo="skip",
        )
    )
    return figure


def _squares(picture: Picture) -> Any:
    from plotly.graph_objects import Bar

    marks = picture.marks
    return Bar(
        orientation="h",
        base=[mark.x for mark in marks],
        x=[mark.width for mark in marks],
        y=[mark.y + mark.height / 2 for mark in marks],
        width=[mark.height for mark in marks],
        marker={"color": [mark.colour for mark in marks], "line": {"width": 0}, "cornerradius": 3},
        hovertext=[_hover(mark.hover) for mark in marks],
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _texts(picture: Picture) -> Any:
    """Return what is written in the marks, above the lines of the groups."""
    from plotly.graph_objects import Scatter

    marks = [mark for mark in picture.marks if mark.text]
    return Scatter(
        x=[mark.x + (mark.width / 2 if picture.single else 5) for mark in marks],
        y=[mark.y + mark.height / 2 for mark in marks],
        mode="text",
        text=[mark.text for mark in marks],
        textposition="middle center" if picture.single else "middle right",
        textfont={
            "color": [TEXT_COLOURS[mark.state] for mark in marks],
            "size": 9.5 * picture.scale,
            "shadow": "0 0 2px #0a2c52, 0 0 3px #0a2c52" if picture.single else "none",
        },
        hoverinfo="skip",
    )


def _lines(lines: Sequence[Sequence[tuple[float, float]]], meta: dict[str, Any], **style: Any) -> Any:
    """Return one trace for several polylines; None breaks the line between them."""
    from plotly.graph_objects import Scatter

    xs: list[float | None] = [x for line in lines for x in (*(point[0] for point in line), None)]
    ys: list[float | None] = [y for line in lines for y in (*(point[1] for point in line), None)]
    return Scatter(x=xs, y=ys, mode="lines", line=style, meta=meta, hoverinfo="skip")


def _sampled(curve: Sequence[float]) -> list[tuple[float, float]]:
    """Return points of a quadratic Bezier curve."""
    x0, y0, cx, cy, x1, y1 = curve
    shares = [step / CURVE_STEPS for step in range(CURVE_STEPS + 1)]
    return [
        (
            round((1 - t) ** 2 * x0 + 2 * t * (1 - t) * cx + t**2 * x1, 1),
            round((1 - t) ** 2 * y0 + 2 * t * (1 - t) * cy + t**2 * y1, 1),
        )
        for t in shares
    ]


def _hover(lines: Sequence[str]) -> str:
    return "<br>".join(html.escape(line) for line in lines)


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("gnomon.topology"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
