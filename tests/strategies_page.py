"""The table of docs/strategies.md, measured: `python tests/strategies_page.py` runs the suite and renews it.

`python tests/strategies_page.py FIGURES.json` takes the figures of a run with GNOMON_STRATEGY_FIGURES=FIGURES.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strategy_cases import CASES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "strategies.md"
SUITE = "tests/conformance/test_training_conformance.py"
BEGIN, END = "<!-- measured: python tests/strategies_page.py -->\n", "<!-- end of measured -->\n"
HEAD = """\
| strategy (ranks) | largest difference from one process | difference after kill -9 | checkpoint also loads on |
|---|---|---|---|
"""


def render_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the figures of every case; raise KeyError for a case without any."""
    return HEAD + "".join(_row(name, rows[name]) for name in CASES)


def render_page(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page with its table renewed."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return f"{before}{BEGIN}\n{render_table(rows)}\n{END}{rest.split(END)[1]}"


def measure(file: Path) -> None:
    """Run the suite and write its figures to `file`; raise CalledProcessError when a test fails."""
    command = [sys.executable, "-m", "pytest", SUITE, "-q", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "GNOMON_STRATEGY_FIGURES": str(file)}, check=True)


def _row(name: str, row: Mapping[str, Any]) -> str:
    ranks = ", ".join(map(str, row["loaded_on"]))
    return f"| {name} | {_number(row['difference'])} | {_number(row['resumed'])} | {ranks} |\n"


def _number(value: float) -> str:
    return "0 (bit for bit)" if value == 0 else f"{value:.1e}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder, "figures.json")
        if len(sys.argv) == 1:
            measure(path)
        PAGE.write_text(render_page(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
