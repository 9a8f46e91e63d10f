"""The page in a real browser, from file:// with the network off."""

import os
import shutil

import pytest

from gnomon.report.build import build_report
from report_fixtures import fake_estimate, make_full_run, make_run

pytestmark = pytest.mark.browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DRAWN = "document.querySelectorAll('.plot-container').length === document.querySelectorAll('[data-figure]').length"
BUTTONS = "[...new Set([...document.querySelectorAll('.modebar-btn')].map((button) => button.dataset.title))].sort()"
TRACES = """() => Object.fromEntries([...document.querySelectorAll('[data-figure]')].map(
    (element) => [element.dataset.figure, element.querySelectorAll('.trace').length]))"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = os.environ.get("GNOMON_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH and GNOMON_CHROMIUM is not set")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page and also gives what the browser complained about and asked for."""
    contexts = []

    def open_file(path, width=1280, colours="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, color_scheme=colours)
        contexts.append(context)
        page = context.new_page()
        trouble, requests = [], []
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_function(DRAWN, timeout=60_000)
        return page, trouble, requests

    yield open_file
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return build_report(make_full_run(tmp_path_factory.mktemp("runs") / "full"))


def test_every_figure_is_drawn_without_network_or_complaint(report, open_page):
    page, trouble, requests = open_page(report)
    assert trouble == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    traces = page.evaluate(TRACES)
    assert len(traces) == 7
    assert all(count > 0 for count in traces.values()), traces
    assert traces["time"] == 2


def test_no_button_sends_a_figure_away(report, open_page):
    page, _, _ = open_page(report)
    assert page.evaluate(BUTTONS) == ["Download plot as a PNG", "Pan", "Reset axes", "Zoom", "Zoom in", "Zoom out"]
    urls = page.evaluate("[...document.querySelectorAll('[data-figure]')].map((one) => one._context.plotlyServerURL)")
    assert set(urls) == {""}


def test_the_headline_can_be_read(report, open_page):
    page, _, _ = open_page(report)
    text = page.inner_text("#answer")
    for words in ("522 ms", "568 ms", "7,854", "7,216", "51.2%", "47.1%", "465 MiB", "513 MiB", "8.1% too low"):
        assert words in text
    assert "Two thirds of the gap is matrix multiply" in page.inner_text("#why")


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_wider_than_the_window(report, open_page, width):
    page, _, _ = open_page(report, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut_off = page.evaluate(
        """() => [...document.querySelectorAll('.plot svg text')].filter((text) => {
            const box = text.getBoundingClientRect();
            const plot = text.closest('.plot').getBoundingClientRect();
            return box.width && (box.left < plot.left - 1 || box.right > plot.right + 1);
        }).map((text) => text.textContent)"""
    )
    assert cut_off == []


def test_texts_of_figures_follow_a_dark_theme(report, open_page):
    page, trouble, _ = open_page(report, colours="dark")
    assert trouble == []
    fill = page.evaluate("getComputedStyle(document.querySelector('[data-figure=time] .ytick text')).fill")
    assert fill == "rgb(230, 233, 237)"


def test_a_page_without_measurement_draws_what_there_is(tmp_path, open_page):
    page, trouble, _ = open_page(build_report(make_run(tmp_path / "planned", estimate=fake_estimate())))
    assert trouble == []
    assert "Nothing was measured." in page.inner_text("main")
    assert page.locator("[data-figure]").count() == 3
