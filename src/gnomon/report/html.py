"""The report as one HTML file that needs no network: styles, script and plotly.js are inside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gnomon.plotly_script import plotly_script
from gnomon.report.content import Content
from gnomon.report.panels import Panel

if TYPE_CHECKING:
    from jinja2 import Template


def render_html(content: Content, panels: Mapping[str, Panel]) -> str:
    """Return the page. Text from the run is escaped; figures travel as JSON that cannot end its script element."""
    return template("report.html.j2").render(
        content=content,
        panels=panels,
        figures={panel.key: panel.figure for panel in panels.values()},
        plotly_js=plotly_script() if panels else "",
    )


def template(name: str) -> Template:
    """Return a page's template: everything put into it is escaped, and a name that it lacks is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("gnomon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
