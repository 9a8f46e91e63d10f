"""The report as Markdown: the content of the page as tables."""

from __future__ import annotations

from collections.abc import Iterable

from gnomon.report.content import Content
from gnomon.report.tables import Table

SECTIONS = (
    ("headline", "Headline"),
    ("time", "Where the time goes"),
    ("memory", "Where the memory goes"),
    ("training", "Training"),
    ("measured_operators", "Longest measured operators"),
    ("planned_operators", "Longest planned operators"),
    ("sources", "Where each number comes from"),
    ("calibration", "Calibration"),
    ("environment", "Environment"),
)


def render_markdown(content: Content) -> str:
    """Return the report as Markdown."""
    blocks = [f"# {_plain(content.title)}", f"**{_plain(content.answer)}**"]
    blocks.append(_bullets([*(f"{name}: {value}" for name, value in content.facts), f"Date: {content.created}"]))
    blocks += [f"> {_plain(notice.text)} Make it with: `{notice.command}`" for notice in content.notices]
    if content.summary:
        blocks += ["## Why they differ", _bullets(content.summary)]
    for name, title in SECTIONS:
        if name in content.tables:
            blocks += [f"## {title}", _table(content.tables[name])]
        if name == "sources" and content.assumptions:
            blocks += ["### Assumptions of the prediction", _bullets(content.assumptions)]
    blocks += ["## How to reproduce", "\n".join(f"- `{command}`: {what}" for command, what in content.commands)]
    return "\n\n".join(blocks) + "\n"


def _table(table: Table) -> str:
    rule = ["---:" if index in table.numeric else "---" for index in range(len(table.columns))]
    lines = [_row(table.columns), _row(rule), *(_row([_plain(cell) for cell in row]) for row in table.rows)]
    return "\n".join(lines) + (f"\n\n{_plain(table.note)}" if table.note else "")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: no HTML, no new column, no new line."""
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")
    return " ".join(escaped.replace("*", "\\*").split())
