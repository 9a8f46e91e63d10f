"""report.md of a fake run against a file. To accept a change, run with UPDATE_GOLDEN=1 and read the diff."""

import os
from pathlib import Path

from gnomon.report.build import build_report
from gnomon.runtime.run_directory import RunDirectory
from report_fixtures import make_full_run

GOLDEN = Path(__file__).with_name("report.md")


def test_markdown_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_full_run(Path("runs/fake"))
    build_report(RunDirectory.open(run.path))
    text = run.report_markdown.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
