"""The page of `3dtrn` says what `3dtrn` says, to the digits that it shows."""

import re

import pytest

from training_3d_fixtures import ROOT
from training_3d_page import CELLS, PAGE, cells, on_page, refreshed

REFRESH = "the figures have changed: run `python tests/training_3d_page.py` and read the diff"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = sorted(path.stem for path in (ROOT / "examples" / "3dtrn").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_page_shows_what_the_program_prints(example):
    found = cells(example)
    assert {quantity: on_page(TEXT, example, quantity) for quantity in found} == found, REFRESH


def test_refreshing_changes_no_more_than_figures():
    new = refreshed(TEXT)
    assert re.sub(r"[0-9.]+", "#", new) == re.sub(r"[0-9.]+", "#", TEXT)
    assert sorted(CELLS) == EXAMPLES


def test_every_weakness_of_dlcalc_is_answered():
    section = TEXT.partition("\n### Its weaknesses, one by one\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([0-9]+) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE) == [str(n) for n in range(1, 17)]
