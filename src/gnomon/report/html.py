"""The report as one HTML file that needs no network: styles, script and plotly.js are inside it."""

from __future__ import annotations

from collections.abc import Mapping

from gnomon.report.content import Content
from gnomon.report.panels import Panel


def render_html(content: Content, panels: Mapping[str, Panel]) -> str:
    """Return the page. Text from the run is escaped; figures travel as JSON that cannot end its script element."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("gnomon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.j2")
    return template.render(
        content=content,
        panels=panels,
        figures={panel.key: panel.figure for panel in panels.values()},
        plotly_js=Markup(get_plotlyjs()) if panels else "",
    )
