"""Tables fitted to a terminal: no line is too long, no word is cut, nothing is lost."""

import io

import pytest
from rich.console import Console, Group
from rich.table import Table

from gnomon.cli.plan_tables import fitted


def a_table() -> Table:
    table = Table(title="Operators", caption="of one step")
    table.add_column("operator", overflow="fold")
    for name in ("parameters", "step time", "achieved"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("where it comes from", overflow="fold")
    table.add_row("tensor-parallel sums", "[bold]70.55 B", "2.24 s", "142.68 GiB/s", "ring, tree or all-to-all")
    table.add_row("mlp up", "0.5 B", "1 s", "628.22 TFLOP/s", "the curve of the generation")
    return table


def text_of(renderable, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(fitted(renderable, width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 50, 60, 80, 100, 200])
def test_no_word_is_cut_and_no_line_is_too_long(width):
    text = text_of(Group(a_table(), "a line"), width)
    assert all(len(line) <= width for line in text.splitlines())
    for word in ("operator", "parameters", "achieved", "tensor-parallel", "142.68", "TFLOP/s", "of one step", "a line"):
        assert word in text


def test_numbers_keep_their_units():
    text = text_of(a_table(), 60)
    assert "70.55 B" in text
    assert "2.24 s" in text


def test_the_sources_go_before_the_rows_are_stacked():
    texts = [text_of(a_table(), width) for width in range(110, 30, -1)]
    kinds = ["whole" if "generation" in t else "without sources" if "┃" in t else "stacked" for t in texts]
    assert list(dict.fromkeys(kinds)) == ["whole", "without sources", "stacked"]
    assert kinds == sorted(kinds, key=["whole", "without sources", "stacked"].index)


def test_a_table_that_fits_is_left_as_it_is():
    table = a_table()
    assert fitted(table, 200) is table
