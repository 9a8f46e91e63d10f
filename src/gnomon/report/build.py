"""Run directory to report.html, report.md and report.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gnomon.errors import ReportError
from gnomon.report.commands import measure_command, plan_command
from gnomon.report.comparison import Comparison, Term
from gnomon.report.content import Content, build_content
from gnomon.report.html import render_html
from gnomon.report.inputs import ReportInputs, is_pipeline, read_inputs
from gnomon.report.markdown import render_markdown
from gnomon.report.panels import build_panels
from gnomon.runtime.run_directory import RunDirectory

SCHEMA_VERSION = 1


def build_report(run: RunDirectory) -> Path:
    """Write report.html, report.md, report.json and a missing comparison.json; return the path of the page.

    Files of the report that exist are replaced, each atomically; nothing else is touched. Raises ReportError when
    the run has neither an estimate nor a measurement, or when the two describe different work.
    """
    inputs = read_inputs(run)
    content = build_content(inputs)
    if inputs.comparison is not None and not run.comparison.is_file():
        run.write_text(run.comparison.name, inputs.comparison.to_json() + "\n")
    run.write_text("report.json", json.dumps(report_document(inputs, content), indent=2) + "\n")
    run.write_text(run.report_markdown.name, render_markdown(content))
    return run.write_text(run.report_html.name, render_html(content, build_panels(inputs, content)))


def compare_run(run: RunDirectory) -> Comparison:
    """Compare the estimate and the measurement of a run and write comparison.json; raise ReportError without both."""
    comparison = read_inputs(run).comparison
    if comparison is None:
        missing, command = (
            ("measurement.json", measure_command(str(run.path)))
            if run.estimate.is_file()
            else ("estimate.json", plan_command(str(run.path), is_pipeline(run)))
        )
        raise ReportError(f"'{run.path}' has no {missing}, so there is nothing to compare. Make it with: {command}")
    run.write_text(run.comparison.name, comparison.to_json() + "\n")
    return comparison


def report_document(inputs: ReportInputs, content: Content) -> dict[str, Any]:
    """Return the report as plain JSON values; quantities are in SI units."""
    return {
        "schema_version": SCHEMA_VERSION,
        "title": content.title,
        "run": inputs.run,
        "created": inputs.created,
        "summary": [content.answer, *content.summary],
        "headline": [_term(term) for term in content.headline],
        "time": [_term(term) for term in content.time],
        "memory": [_term(term) for term in content.memory],
        "missing": [{"text": notice.text, "command": notice.command} for notice in content.notices],
        "sources": {row[0]: row[1] for row in content.tables["sources"].rows},
        "assumptions": list(content.assumptions),
        "environment": inputs.environment,
    }


def _term(term: Term) -> dict[str, Any]:
    return {**term.to_mapping(), "difference": term.difference, "relative_error": term.relative_error}
