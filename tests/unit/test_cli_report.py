import json
import webbrowser

import pytest
from typer.testing import CliRunner

from gnomon.cli.main import app
from gnomon.errors import ReportError, RunDirectoryError
from report_fixtures import fake_estimate, fake_measurement, make_full_run


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_compare_prints_terms_and_reasons(tmp_path):
    run = make_full_run(tmp_path / "run")
    output = invoke("compare", str(run.path))
    for text in ("522 ms", "568 ms", "matrix multiply", "Two thirds of the gap"):
        assert text in output
    assert run.comparison.is_file()


def test_compare_of_two_files_prints_json_and_writes_nothing(tmp_path):
    estimate = fake_estimate().save(tmp_path / "e.json")
    measurement = fake_measurement().save(tmp_path / "m.json")
    document = json.loads(invoke("compare", "--estimate", str(estimate), "--measurement", str(measurement), "--json"))
    assert document["headline"][0]["measured"] == 0.5676
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.json", "m.json"]


@pytest.mark.parametrize("arguments", [[], ["--estimate", "e.json"], ["run", "--estimate", "e.json"]])
def test_compare_says_what_it_takes(arguments):
    with pytest.raises(ReportError, match="Give either RUN_DIR, or both"):
        CliRunner().invoke(app, ["compare", *arguments], catch_exceptions=False)


def test_report_prints_the_path_of_the_page(tmp_path):
    run = make_full_run(tmp_path / "run")
    assert invoke("report", str(run.path)).strip() == str(run.report_html)


def test_report_as_json_and_in_a_browser(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    run = make_full_run(tmp_path / "run")
    document = json.loads(invoke("report", str(run.path), "--json", "--open"))
    assert document["title"] == "fake-gpt on Fake CPU @ 2.60GHz"
    assert opened == [run.report_html.as_uri()]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunDirectoryError, match="not a run directory"):
        CliRunner().invoke(app, ["report", str(tmp_path)], catch_exceptions=False)
