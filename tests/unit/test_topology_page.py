"""The page of a network in a real browser, from file:// with the network off."""

import os
import shutil

import pytest

from gnomon.spec import Layout
from gnomon.topology.assign import assign, place_job
from gnomon.topology.draw import render_html
from gnomon.topology.graph import Topology
from topology_fixtures import binary_tree, star

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
SHOWN = "() => document.getElementById('network').data.filter((t) => t.meta?.kind && t.visible).map((t) => t.meta.kind)"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = os.environ.get("GNOMON_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH and GNOMON_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Return a function that opens a page, for a layout that of a placed job, and what the browser complained about."""
    contexts = []

    def opened(topology, layout, width=1280):
        path = tmp_path / "page.html"
        if layout is None:
            path.write_text(render_html(topology))
        else:
            assignment = assign(topology, layout)
            path.write_text(render_html(place_job(topology, assignment.node_names), assignment.evaluation))
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
        contexts.append(context)
        page, trouble = context.new_page(), []
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        page.wait_for_selector("#network .plot-container")
        return page, trouble

    yield opened
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("topology", [binary_tree(8), star(*[8] * 128)], ids=["8", "1024"])
def test_the_page_draws_every_mark_and_is_as_wide_as_the_window(open_page, topology, width):
    page, trouble = open_page(topology, Layout(tp=8, pp=2, dp=4), width)
    assert trouble == []
    marks = 8 if len(topology.nodes) == 8 else 128
    assert page.locator("#network .bars .point").count() == marks
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("ranked", [True, False])
def test_a_narrow_window_shows_the_job_or_else_the_left_edge_of_the_machines(open_page, ranked):
    nodes = star(16, 3).nodes
    job = (*nodes[:17], nodes[17].model_copy(update={"rank": 0}), *nodes[18:])
    page, _ = open_page(Topology(nodes=job if ranked else nodes), None, 420)
    first = page.locator("#network .bars .point").nth(17 if ranked else 0).bounding_box()
    assert page.evaluate("document.getElementById('network').parentElement.scrollLeft") > 0
    assert 20 <= first["x"] <= 400


def test_the_groups_of_the_chosen_kind_are_shown(open_page):
    page, trouble = open_page(binary_tree(8), Layout(tp=8, pp=2, dp=4))
    assert page.evaluate(SHOWN) == ["dp", "dp"]
    page.select_option("#kind", "pp")
    assert page.evaluate(SHOWN) == ["pp"] * 4
    page.select_option("#group", index=2)
    assert page.evaluate(SHOWN) == ["pp"]
    page.select_option("#kind", "")
    assert page.evaluate(SHOWN) == []
    assert trouble == []


def test_nothing_sends_the_figure_to_a_server(open_page):
    page, _ = open_page(binary_tree(8), Layout(tp=8, pp=2, dp=4))
    titles = page.eval_on_selector_all(".modebar-btn", "buttons => buttons.map((b) => b.getAttribute('data-title'))")
    assert "Pan" in titles
    assert not [title for title in titles if "share" in title.lower() or "cloud" in title.lower()]


def test_pointing_at_a_machine_tells_what_it_is(open_page):
    page, _ = open_page(binary_tree(8), Layout(tp=8, pp=2, dp=4))
    box = page.locator("#network .bars .point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.locator("#network .hoverlayer", has_text="node rank 0").wait_for(state="attached", timeout=5000)
