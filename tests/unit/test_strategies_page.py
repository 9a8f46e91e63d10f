"""docs/strategies.md lists every case of the training conformance suite, each within its tolerance."""

import re

from gnomon.strategy.registry import list_strategies
from strategies_page import BEGIN, END, PAGE, _number, render_table
from strategy_cases import CASES, TOLERANCE

ROW = re.compile(r"\| (.+?) \| (\S+)(?: \(bit for bit\))? \| (\S+)(?: \(bit for bit\))? \| ([\d, ]+) \|")


def test_the_page_lists_every_case_within_its_tolerance():
    table = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = {row[1]: row for row in map(ROW.fullmatch, table.splitlines()) if row is not None}
    assert list(rows) == list(CASES), "run python tests/strategies_page.py"
    for name, row in rows.items():
        assert float(row[2]) <= TOLERANCE
        assert float(row[3]) <= CASES[name].resume_tolerance
        assert "1" in row[4].split(", ")


def test_a_row_shows_what_was_measured():
    rows = {name: {"difference": 2.04e-7, "resumed": 0.0, "loaded_on": [1, 4]} for name in CASES}
    assert "| ddp(2) | 2.0e-07 | 0 (bit for bit) | 1, 4 |" in render_table(rows)
    assert _number(1e-5) == "1.0e-05"


def test_the_page_explains_every_strategy():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in list_strategies() if f"| `{name}` |" not in text] == []
