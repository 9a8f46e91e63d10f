"""The tables of docs/catalog.md say what the catalog's files say."""

from __future__ import annotations

import gnomon.spec.catalog as catalog
from catalog_page import MARK, PAGE, render_page


def test_the_page_shows_the_catalog_as_it_is():
    text = PAGE.read_text(encoding="utf-8")
    assert MARK in text
    assert text == render_page(), "the catalog has changed: run `python tests/catalog_page.py`"


def test_readme_and_changelog_count_what_the_catalog_has():
    models, accelerators, clusters = (
        len(names()) for names in (catalog.list_models, catalog.list_accelerators, catalog.list_clusters)
    )
    root = PAGE.parents[1]
    readme, changelog = ((root / name).read_text(encoding="utf-8") for name in ("README.md", "CHANGELOG.md"))
    assert f"[{models} in the catalog]" in readme
    assert f"[{accelerators} accelerators and {clusters} clusters]" in readme
    assert f"A catalog of {models} models, {accelerators} accelerators and {clusters} clusters" in changelog


def test_every_entry_is_on_the_page_once():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name in (*catalog.list_accelerators(), *catalog.list_clusters(), *catalog.list_models()):
        assert sum(line.startswith(f"| `{name}` |") for line in lines) == 1, name


def test_a_row_by_hand():
    text = PAGE.read_text(encoding="utf-8")
    row = "| `h100-sxm` | 66.9 | 66.9 | 494.7 | 989.4 | 989.4 | 1978.9 |  | 1978.9 | 80 | 3350 | 700 | 132 |"
    assert row in text
    assert "| `dgx-a100` | 8 x `a100-80gb` | NVLink 3 8: 300; HDR InfiniBand 4480: 25 |" in text
    assert "| `mixtral-8x7b` | 46.703 (12.880) | 32 | 4096 | 32/8 | 8, 2 per token | 32000 |" in text
