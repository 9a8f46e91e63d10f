import json
import re
from html.parser import HTMLParser

import pytest

from gnomon.errors import ReportError
from gnomon.profile.measurement import OperatorMeasurement
from gnomon.report.build import build_report, compare_run
from gnomon.report.commands import measure_command, plan_command, start_command, train_command
from gnomon.report.comparison import Comparison
from report_fixtures import (
    MODEL,
    fake_environment,
    fake_estimate,
    fake_measurement,
    fake_metrics,
    make_full_run,
    make_run,
)

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Collects tags, ids, visible text and what would be loaded."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts = 0
        self.figures: list[str] = []
        self.anchors: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self._hidden = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.scripts += tag == "script"
        self._hidden += tag in ("script", "style")
        self.loads += [values[key] for key in ("src", "srcset", "data", "poster") if key in values]
        if tag == "link":
            self.loads.append(values["href"])
        if tag == "a":
            self.anchors.append(values["href"])
        if "data-figure" in values:
            self.figures.append(values["data-figure"])
        if "id" in values:
            self.ids.append(values["id"])

    def handle_endtag(self, tag):
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self._hidden:
            self.text += data


@pytest.fixture(scope="module")
def full_run(tmp_path_factory):
    run = make_full_run(tmp_path_factory.mktemp("runs") / "full")
    build_report(run)
    return run


@pytest.fixture(scope="module")
def page(full_run):
    return Page(full_run.report_html.read_text(encoding="utf-8"))


def test_the_page_has_every_figure_once(page):
    assert page.figures == ["waterfall", "time", "memory", "loss", "step_times", "roofline", "operators"]


def test_the_page_loads_nothing(page, full_run):
    assert page.loads
    assert all(address.startswith("data:") for address in page.loads)
    text = full_run.report_html.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "form-action 'none'" in text
    assert text.count("Plotly.setPlotConfig(") == 1
    assert '"showSendToCloud": false, "plotlyServerURL": ""' in text
    styles = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert not re.search(r"@import|url\(", "".join(styles))


def test_links_lead_to_sections_of_the_page(page):
    assert page.anchors
    assert all(anchor.removeprefix("#") in page.ids for anchor in page.anchors)
    assert len(set(page.ids)) == len(page.ids)


def test_the_headline_is_on_the_page(page):
    for text in ("522 ms", "568 ms", "7,216", "47.1%", "513 MiB", "prediction 8.1% too low", "fake-gpt on Fake CPU"):
        assert text in page.text


def test_the_page_says_where_numbers_come_from(page):
    for text in (
        "median of 56 steady steps",
        "highest matrix-multiply rate measured by gnomon calibrate",
        "AdamW with fp32 weights, gradients and moments",
        "0123456789abcdef",
    ):
        assert text in page.text


def test_folders_of_the_machine_stay_out_of_the_page(full_run):
    assert fake_environment()["working_directory"] not in full_run.report_html.read_text(encoding="utf-8")


def test_hostile_names_are_shown_and_not_run(tmp_path):
    model = MODEL.model_copy(update={"name": HOSTILE})
    operators = (OperatorMeasurement(name=f"aten{HOSTILE}", term="matmul_s", calls=1, time_s=0.1),)
    run = make_run(
        tmp_path / "hostile",
        estimate=fake_estimate(model=model, assumptions=(HOSTILE,), sources={HOSTILE: HOSTILE}),
        measurement=fake_measurement(model=model, device=HOSTILE, operators=operators),
    )
    text = build_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert page.scripts == 3
    assert f"{HOSTILE} on Fake CPU" in page.text
    assert HOSTILE not in text
    assert "<script" not in run.report_markdown.read_text(encoding="utf-8")


def test_figures_cannot_end_their_script_element(tmp_path):
    operators = (OperatorMeasurement(name="</script><b>", term="matmul_s", calls=1, time_s=0.1),)
    run = make_run(tmp_path / "run", measurement=fake_measurement(operators=operators))
    text = build_report(run).read_text(encoding="utf-8")
    figures = re.search(r'<script id="figures" type="application/json">(.*?)</script>', text, flags=re.DOTALL)
    assert set(json.loads(figures[1])) == {"time", "memory", "operators"}


@pytest.mark.parametrize(
    ("parts", "missing", "shown"),
    [
        ({"estimate": fake_estimate()}, "Nothing was measured.", "The plan says 522 ms per step"),
        ({"measurement": fake_measurement(), "metrics": fake_metrics()}, "There is no prediction.", "took 568 ms"),
    ],
)
def test_half_a_run_gives_half_a_page_that_says_so(tmp_path, parts, missing, shown):
    run = make_run(tmp_path / "half", **parts)
    page = Page(build_report(run).read_text(encoding="utf-8"))
    assert missing in page.text
    assert shown in page.text
    assert "gnomon" in page.text.split(missing)[1][:60]
    assert "waterfall" not in page.figures
    assert not run.comparison.exists()


def test_a_run_with_nothing_is_refused(tmp_path):
    with pytest.raises(ReportError, match=r"neither estimate\.json nor measurement\.json"):
        build_report(make_run(tmp_path / "empty"))


def test_only_files_of_the_report_are_written(tmp_path):
    run = make_full_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    build_report(run)
    build_report(run)
    after = {path.name: path.read_bytes() for path in run.path.iterdir()}
    assert set(after) - set(before) == {"report.html", "report.md", "report.json", "comparison.json"}
    assert all(after[name] == content for name, content in before.items())


def test_a_comparison_that_exists_is_kept(tmp_path):
    run = make_full_run(tmp_path / "run")
    run.comparison.write_text("{}", encoding="utf-8")
    build_report(run)
    assert run.comparison.read_text(encoding="utf-8") == "{}"


def test_the_json_report_holds_quantities_in_si_units(full_run):
    document = json.loads((full_run.path / "report.json").read_text(encoding="utf-8"))
    step = document["headline"][0]
    assert (step["name"], step["predicted"], step["measured"]) == ("step_time_s", 0.5215, 0.5676)
    assert step["relative_error"] == pytest.approx((0.5215 - 0.5676) / 0.5676)
    assert document["missing"] == []
    assert document["environment"]["versions"]["torch"] == "2.9.0"


def test_compare_run_writes_the_comparison(tmp_path):
    run = make_full_run(tmp_path / "run")
    assert compare_run(run) == Comparison.load(run.comparison)


@pytest.mark.parametrize(
    ("parts", "command"),
    [({"estimate": fake_estimate()}, "gnomon profile train"), ({"measurement": fake_measurement()}, "gnomon plan")],
)
def test_comparing_half_a_run_names_the_command_that_helps(tmp_path, parts, command):
    with pytest.raises(ReportError, match=command):
        compare_run(make_run(tmp_path / "half", **parts))


def test_commands_name_the_run_and_are_quoted():
    assert measure_command("my runs/a") == "gnomon profile train 'my runs/a'"
    assert measure_command("r", again=True).endswith("--force")
    assert plan_command("r", is_pipeline=True) == "gnomon exec-pipeline --config r/config.yaml --steps plan"
    assert plan_command("r", is_pipeline=False) == "gnomon plan CONFIG --output r"
    assert train_command("r", is_pipeline=True).endswith("--steps train")


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("/venv/bin/python /venv/bin/gnomon exec-pipeline ranks=2", "gnomon exec-pipeline ranks=2"),
        ("python -m other 'a b'", "python -m other 'a b'"),
        ("unbalanced 'quote", "unbalanced 'quote"),
        (None, "gnomon exec-pipeline"),
    ],
)
def test_the_command_that_started_the_run(command, shown):
    assert start_command({"command": command}) == shown


def test_a_pipeline_configuration_is_recognised(tmp_path):
    run = make_run(tmp_path / "run", measurement=fake_measurement())
    run.config.write_text("pipeline: {}\n", encoding="utf-8")
    assert "--steps plan" in build_report(run).read_text(encoding="utf-8")
    run.config.write_text("a: [", encoding="utf-8")
    assert "gnomon plan CONFIG" in build_report(run).read_text(encoding="utf-8")
