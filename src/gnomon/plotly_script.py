"""plotly.js for every page that gnomon writes: inside the page, and set so that no figure leaves it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markupsafe import Markup

CONFIG = {
    "displaylogo": False,
    # figures name machines and models: no button may send them to a server, nor any know where one is
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "modeBarButtonsToRemove": ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
}
"""What holds for every figure of a page; a page's own script may add to it."""


def plotly_script() -> Markup:
    """Return plotly.js followed by CONFIG as the defaults of all its figures, for a `<script>` element."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(f"{get_plotlyjs()}\nPlotly.setPlotConfig({json.dumps(CONFIG)});")
