"""The page of `3dtrn` says what `3dtrn` says: exactly what no calibration changes, times about as they are."""

import re

import pytest

from training_3d_fixtures import ROOT
from training_3d_page import ABOUT, EXACT, PAGE, cells, on_page, refreshed

REFRESH = "the figures have changed: run `python tests/training_3d_page.py`"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = sorted(path.stem for path in (ROOT / "examples" / "3dtrn").glob("*.yaml"))


@pytest.mark.parametrize("example", EXACT)
def test_what_no_calibration_changes(example):
    for quantity, text in cells(example, EXACT).items():
        assert on_page(TEXT, example, quantity) == text, REFRESH


@pytest.mark.parametrize("example", ABOUT)
def test_times_within_a_half(example):
    for quantity, text in cells(example, ABOUT).items():
        numbers = re.findall(r"[0-9.]+", text)
        shown = re.findall(r"[0-9.]+", on_page(TEXT, example, quantity))
        assert list(map(float, shown)) == pytest.approx(list(map(float, numbers)), rel=0.5), f"{quantity}: {REFRESH}"


def test_refreshing_changes_no_more_than_figures():
    new = refreshed(TEXT)
    assert re.sub(r"[0-9.]+", "#", new) == re.sub(r"[0-9.]+", "#", TEXT)
    assert sorted(EXACT) == sorted(ABOUT) == EXAMPLES


def test_every_weakness_of_dlcalc_is_answered():
    section = TEXT.partition("\n### Its weaknesses, one by one\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([0-9]+) \| [^|]+ \| [^|]+ \|$", section, re.MULTILINE) == [str(n) for n in range(1, 17)]
