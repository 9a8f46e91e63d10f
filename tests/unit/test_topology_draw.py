"""The picture of a network: what is in it, and that nothing in a name can break out of it."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.spec import Layout
from gnomon.topology.assign import assign, place_job
from gnomon.topology.draw import render_html, render_svg
from gnomon.topology.evaluate import evaluate
from gnomon.topology.graph import NetworkNode, Topology
from gnomon.topology.groups import process_groups
from gnomon.topology.labels import LABEL_CHARACTERS, short_labels
from gnomon.topology.picture import MAX_TRAILS, draw_picture
from topology_fixtures import binary_tree, star

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</script><img/src=x>'\"&"


def placed(topology, layout, per_node=8):
    return place_job(topology, assign(topology, layout, per_node).node_names)


def test_every_machine_is_a_square_in_the_colour_of_its_state():
    nodes = [
        node.model_copy(
            update={
                "rank": 0 if index == 2 else None,
                "busy": index == 3,
                "accelerators": 8 if index == 3 else None,
            }
        )
        for index, node in enumerate(star(2, 3).nodes)
    ]
    picture = draw_picture(Topology(nodes=tuple(nodes)))
    assert [(mark.state, mark.text) for mark in picture.marks] == [
        ("free", ""),
        ("free", ""),
        ("job", "0"),
        ("busy", ""),
        ("free", ""),
    ]
    assert len({mark.y for mark in picture.marks[:2]}) == 1
    assert picture.marks[0].y < picture.marks[2].y
    assert [switch.label for switch in picture.switches] == ["leaf00", "leaf01", "spine"]
    assert picture.marks[3].hover == ("leaf01-001", "taken by another job", "8 accelerators", "spine > leaf01")
    assert picture.marks[0].hover[2] == "unknown number of accelerators"
    assert picture.single
    assert all(mark.x >= 0 and mark.x + mark.width <= picture.width for mark in picture.marks)
    assert all(mark.y >= 0 and mark.y + mark.height <= picture.height for mark in picture.marks)


def test_many_machines_become_bars_that_add_up():
    picture = draw_picture(placed(star(60, 100, 90), Layout(tp=8, dp=70)))
    assert not picture.single
    assert sum(int(mark.text) for mark in picture.marks) == 250
    assert [mark.text for mark in picture.marks if mark.state == "job"] == ["70"]
    assert [mark.hover[-1] for mark in picture.marks if mark.state == "job"] == ["node ranks 0-69"]
    widest = {}
    for mark in picture.marks:
        widest[mark.y] = widest.get(mark.y, 0) + mark.width
    assert sorted(widest.values()) == pytest.approx([0.6 * 260, 0.9 * 260, 260])


def test_too_many_switches_are_drawn_from_further_up():
    nodes = tuple(
        NetworkNode(name=f"n{i}", path=(f"spine{i // 2048}", f"mid{i // 128}", f"leaf{i // 8}")) for i in range(10_000)
    )
    picture = draw_picture(Topology(nodes=nodes))
    assert len(picture.switches) == 1 + 5 + 79  # the implied root, spines and mids
    assert sum(int(mark.text) for mark in picture.marks) == 10_000
    assert picture.height < 3000


def test_a_machine_on_an_upper_switch_has_its_own_row():
    nodes = (NetworkNode(name="login", path=("spine",)), NetworkNode(name="n", path=("spine", "leaf")))
    marks = draw_picture(Topology(nodes=nodes)).marks
    assert [mark.hover[0] for mark in marks] == ["login", "n"]
    assert marks[0].y != marks[1].y


def test_switches_whose_names_differ_only_in_the_middle_have_labels_that_differ():
    names = [f"a-very-long-name-of-rack{rack:02d}-leaf.dc.example.org" for rack in range(6)]
    nodes = tuple(NetworkNode(name=f"n{name}", path=("spine", name)) for name in names)
    labels = [switch.label for switch in draw_picture(Topology(nodes=nodes)).switches]
    assert labels == [*(f"…name-of-rack{rack:02d}…" for rack in range(6)), "spine"]


@given(st.lists(st.text("ab-.1", min_size=1, max_size=60), unique=True, max_size=40), st.text("ab-.1", max_size=30))
def test_labels_are_short_and_those_of_siblings_differ(middles, around):
    labels = short_labels([f"{around}{middle}{around}" for middle in middles])
    assert len(set(labels.values())) == len(middles)
    assert all(len(label) <= LABEL_CHARACTERS for label in labels.values())


def test_the_page_starts_at_the_first_machine_of_the_job_or_at_the_left_edge_of_the_machines():
    nodes = star(16, 3).nodes
    picture = draw_picture(Topology(nodes=nodes))
    assert picture.start_x == min(mark.x for mark in picture.marks)
    picture = draw_picture(Topology(nodes=(*nodes[:5], nodes[5].model_copy(update={"rank": 0}), *nodes[6:])))
    (first,) = (mark for mark in picture.marks if mark.text == "0")
    assert picture.start_x == first.x + first.width / 2
    bars = draw_picture(placed(star(60, 100, 90), Layout(tp=8, dp=70)))
    assert bars.start_x == min(mark.x for mark in bars.marks if mark.state == "job")


def test_groups_are_drawn_leg_by_leg():
    topology, layout = placed(binary_tree(8), Layout(tp=8, pp=2, dp=4)), Layout(tp=8, pp=2, dp=4)
    groups = process_groups(layout, 8)
    trails = draw_picture(topology, {"dp": groups["dp"], "pp": groups["pp"]}).trails
    assert [(trail.kind, len(trail.curves)) for trail in trails] == [("dp", 4)] * 2 + [("pp", 1)] * 4
    assert trails[0].label == "pp 0, tp 0 (and 7 alike)"


def test_groups_of_bars_run_beside_them_in_lanes_of_their_own():
    layout = Layout(tp=8, pp=2, dp=128)
    topology = placed(star(*[64] * 4), layout)
    picture = draw_picture(topology, {"dp": process_groups(layout, 8)["dp"]})
    right = max(mark.x + mark.width for mark in picture.marks)
    starts = [{curve[0] for curve in trail.curves} for trail in picture.trails]
    assert len(picture.trails) == 2
    assert all(x > right for lane in starts for x in lane)
    assert not starts[0] & starts[1]


@pytest.mark.parametrize(("nodes", "larger"), [(8, True), (64, True), (1024, False)])
def test_small_pictures_are_enlarged_within_the_page(nodes, larger):
    topology = binary_tree(nodes) if nodes < 1000 else star(*[8] * 128)
    picture = draw_picture(topology)
    assert (picture.scale > 1.0) is larger
    assert picture.width * picture.scale <= 900 or not larger
    svg = ElementTree.fromstring(render_svg(topology))
    assert float(svg.get("width")) == pytest.approx(float(svg.get("viewBox").split()[2]) * picture.scale, abs=1)


def test_numbers_are_above_the_lines_of_groups():
    layout = Layout(tp=8, pp=2, dp=4)
    topology = placed(binary_tree(8), layout)
    text = render_svg(topology, evaluate(topology, layout))
    assert text.rindex("<path stroke=") < text.index(">7</text>")


def test_the_page_offers_no_way_to_send_the_figure_away():
    page = render_html(hostile_topology())
    assert page.count("Plotly.setPlotConfig(") == 1
    assert '"showSendToCloud": false, "plotlyServerURL": ""' in page
    assert "form-action 'none'" in page


def test_lines_that_would_show_nothing_are_left_out_and_said_so():
    topology, layout = placed(star(*[2] * 60), Layout(pp=2, dp=60), 1), Layout(pp=2, dp=60)
    picture = draw_picture(topology, {"pp": process_groups(layout, 1)["pp"]})
    assert len(picture.trails) == MAX_TRAILS
    assert picture.notes == (f"Only the first {MAX_TRAILS} pipeline parallel groups are drawn.",)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.loads = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]


def hostile_topology():
    nodes = (
        NetworkNode(name="<b>a</b>", path=(HOSTILE,), rank=0, labels={"k": HOSTILE}),
        NetworkNode(name="b", path=(HOSTILE, "<i>leaf</i>"), rank=1),
    )
    return Topology(nodes=nodes, source=HOSTILE)


def test_the_page_needs_no_network_and_escapes_names():
    topology = hostile_topology()
    text = render_html(topology, evaluate(topology, Layout(dp=2), 1))
    page = Page(text)
    assert page.loads == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 3
    figure = json.loads(re.search(r'<script id="figure" type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    bars = next(trace for trace in figure["data"] if trace["type"] == "bar")
    assert bars["hovertext"][0].startswith("&lt;b&gt;a&lt;/b&gt;<br>node rank 0<br>")
    assert "&lt;b&gt;a&lt;/b&gt;" in text  # in the table


def test_the_page_lists_the_distances():
    topology = binary_tree(8, ranked=True)
    text = render_html(topology, evaluate(topology, Layout(tp=8, pp=2, dp=4)))
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", text.partition("</table>")[0])
    assert cells[7:14] == ["data parallel", "16", "320", "320", "5.00", "6", "16"]
    assert re.findall(r'<option value="(\w*)"', text) == ["", "dp", "pp"]


@pytest.mark.parametrize("num_nodes", [8, 200, 1024])
def test_the_image_is_well_formed_and_complete(num_nodes):
    layout = Layout(tp=8, pp=2, dp=num_nodes // 4)
    topology = placed(binary_tree(num_nodes), layout)
    root = ElementTree.fromstring(render_svg(topology, evaluate(topology, layout)))
    marks = [
        group.find(f"{SVG}title").text
        for group in root.iter(f"{SVG}g")
        if group.find(f"{SVG}rect") is not None and group.find(f"{SVG}title") is not None
    ]
    assert len(marks) == (num_nodes if num_nodes <= 200 else 4)
    assert sum(path.find(f"{SVG}title") is not None for path in root.iter(f"{SVG}path")) == 2
    assert len(render_svg(topology)) < len(render_svg(topology, evaluate(topology, layout)))


def test_the_image_escapes_names():
    root = ElementTree.fromstring(render_svg(hostile_topology()))
    assert root.find(f"{SVG}title").text == HOSTILE
    assert not list(root.iter(f"{SVG}img"))


STEERING = "leaf\x01\x1b[31m\uffff"
ESCAPED = r"leaf\x01\x1b[31m\uffff"


def steering_topology(num_nodes):
    nodes = (
        NetworkNode(name=f"n{rank}", path=(STEERING,), rank=rank, labels={"k": STEERING}) for rank in range(num_nodes)
    )
    return Topology(nodes=tuple(nodes), source=STEERING)


@pytest.mark.parametrize("num_nodes", [2, 300])
def test_what_steers_a_terminal_is_escaped_in_the_image(num_nodes):
    text = render_svg(steering_topology(num_nodes))
    root = ElementTree.fromstring(text)
    assert root.find(f"{SVG}title").text == ESCAPED
    assert ESCAPED in {element.text for element in root.iter(f"{SVG}text")}
    assert all(character.isprintable() or character == "\n" for character in text)


def test_what_steers_a_terminal_is_escaped_on_the_page():
    text = render_html(steering_topology(2))
    figure = re.search(r'<script id="figure" type="application/json">(.*?)</script>', text, re.DOTALL)[1]
    shown = text.partition("<body>")[2].partition("<script")[0]
    assert f"<h1>{ESCAPED}</h1>" in shown
    assert f"<td>{ESCAPED}</td>" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)
    traces = json.loads(figure)["data"]
    texts = [line for trace in traces for key in ("hovertext", "text") for line in trace.get(key, ())]
    assert any(f"<br>k: {ESCAPED}" in line for line in texts)
    assert ESCAPED in texts
    assert all(map(str.isprintable, texts))
