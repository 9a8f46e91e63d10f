"""What the pages of the planner are made of, and how they are rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gnomon.plotly_script import plotly_script
from gnomon.report.html import template
from gnomon.report.panels import Panel
from gnomon.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a reading of it in one sentence, figures, and the numbers as tables."""

    key: str
    title: str
    reading: str
    panels: tuple[Panel, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """What a page says: its title, what was asked, the answer in one sentence, and the sections."""

    title: str
    facts: Sequence[tuple[str, str]]
    answer: str
    sections: Sequence[Section]
    assumptions: Sequence[str]


def render_page(page: Page) -> str:
    """Return one HTML page that needs no network."""
    return template("plan.html.j2").render(
        page=page,
        figures={panel.key: panel.figure for section in page.sections for panel in section.panels},
        plotly_js=plotly_script(),
    )
