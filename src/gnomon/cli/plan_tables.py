"""Tables for narrow terminals: words are not cut, and where columns have no room, rows are stacked."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Column, Table

SOURCE = "where it comes from"
LONGEST_WORD = 24
"""Longer words, such as addresses, may be cut."""
SMALL_NEED = 16
"""A column that lacks no more than this to be unfolded comes before those that lack more."""
SHORT_VALUE = 12
"""Numbers with their unit up to this length stay on one line."""


def show(renderable: RenderableType) -> None:
    """Print tables on stdout, fitted to the width of the terminal."""
    from gnomon.console import make_console

    console = make_console(fold_in_pipes=True)
    console.print(fitted(renderable, console.width))


def fitted(renderable: RenderableType, width: int) -> RenderableType:
    """Return `renderable` with every table in it fitted to `width` characters."""
    from rich.console import Group
    from rich.table import Table

    if isinstance(renderable, Group):
        return Group(*(fitted(part, width) for part in renderable.renderables))
    return _fit(renderable, width) if isinstance(renderable, Table) else renderable


def _fit(table: Table, width: int) -> RenderableType:
    """Return the table with widths that cut no word; without its sources, or stacked, where there is no room."""
    columns = table.columns
    room = width - 3 * len(columns) - 1
    whole, least = [_whole(c) for c in columns], [_least(c) for c in columns]
    if sum(whole) <= room:
        return table
    if sum(least) > room:
        if len(columns) > 1 and columns[-1].header == SOURCE:
            return _fit(_with_columns(table, columns[:-1]), width)
        return _stacked(table)
    spare = room - sum(least)
    result = _with_columns(table, [copy(c) for c in columns])
    order = sorted(range(len(columns)), key=lambda i: whole[i] - least[i])
    for place, i in enumerate(order):
        need = whole[i] - least[i]
        grown = min(need, spare if need <= SMALL_NEED else spare // (len(order) - place))
        result.columns[i].width = least[i] + grown
        spare -= grown
    return result


def _with_columns(table: Table, columns: list[Column]) -> Table:
    result = copy(table)
    result.columns = columns
    return result


def _stacked(table: Table) -> RenderableType:
    """Return one line for each cell that is not empty, under the first cell of its row."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    result = Table(box=None, show_header=False, padding=(0, 1))
    first, *others = table.columns
    for row in range(table.row_count):
        if row:
            result.add_row("", "")
        result.add_row(first.header, Text(_plain(list(first.cells)[row]), style="bold"))
        for column in others:
            cell = list(column.cells)[row]
            if _plain(cell).strip():
                result.add_row(Text(f"  {_plain(column.header)}"), cell)
    title, caption = (Text(_plain(text or ""), style="italic") for text in (table.title, table.caption))
    return Group(*([title] if title else []), result, *([caption] if caption else []))


def _whole(column: Column) -> int:
    return max((_length(line) for text in _texts(column) for line in text.splitlines()), default=0)


def _least(column: Column) -> int:
    """Return the width that cuts no word, nor a short number from its unit."""
    longest = max((_length(word) for text in _texts(column) for word in text.split()), default=0)
    values = [_length(_plain(cell)) for cell in column.cells if column.justify == "right"]
    short = max((value for value in values if value <= SHORT_VALUE), default=0)
    return max(1, min(max(longest, short), LONGEST_WORD))


def _texts(column: Column) -> list[str]:
    return [_plain(column.header), *(_plain(cell) for cell in column.cells)]


def _plain(cell: RenderableType) -> str:
    from rich.text import Text

    return Text.from_markup(cell).plain if isinstance(cell, str) else getattr(cell, "plain", "")


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
