"""Join the names of repeated layers: `layers.0.w`, ..., `layers.31.w` become `layers.{0..31}.w`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_MAX_RUNS = 6

Part = str | frozenset[int]


@dataclass(frozen=True, slots=True)
class Row:
    """A name in parts, and what is said of it. Rows that say the same and differ in one number become one."""

    parts: tuple[Part, ...]
    text: str
    count: int = 1

    @property
    def name(self) -> str:
        """The parts joined by dots, sets of numbers as `{0..31}`."""
        return ".".join(part if isinstance(part, str) else _ranges(part) for part in self.parts)


def split_name(name: str) -> tuple[Part, ...]:
    """Return the parts of a dotted name, the numbers among them as sets of one."""
    parts = name.split(".")
    return tuple(frozenset((int(part),)) if _is_index(part) else part for part in parts)


def collapse(rows: Iterable[Row]) -> list[Row]:
    """Return the rows with those joined that differ in their numbers only, in the order of their first names.

    One position is joined after the other, the last ones first, so that every row stands for the whole product of its
    sets: nothing is named that is not there.
    """
    result = list(rows)
    for position in reversed(range(max((len(row.parts) for row in result), default=0))):
        groups: dict[object, list[Row]] = {}
        for index, row in enumerate(result):
            groups.setdefault(_but(row, position) or index, []).append(row)
        result = [group[0] if len(group) == 1 else _join(group, position) for group in groups.values()]
    return result


def _but(row: Row, position: int) -> object:
    """Return all of a row but the numbers at a position; None when there are none."""
    if position >= len(row.parts) or isinstance(row.parts[position], str):
        return None
    return row.parts[:position], row.parts[position + 1 :], row.text


def _join(rows: list[Row], position: int) -> Row:
    """Return one row for several that differ in their numbers at one position."""
    numbers: set[int] = set()
    for row in rows:
        part = row.parts[position]
        numbers.update(part if isinstance(part, frozenset) else ())
    first = rows[0].parts
    parts = (*first[:position], frozenset(numbers), *first[position + 1 :])
    return Row(parts, rows[0].text, sum(row.count for row in rows))


def _is_index(part: str) -> bool:
    """Return whether a part is a number as Python prints it; `007` is a name."""
    return part.isascii() and part.isdecimal() and len(part) < 10 and str(int(part)) == part


def _ranges(numbers: frozenset[int]) -> str:
    """Return `7`, `{0..31}` or `{0,2,8..9}`; long lists are cut with their size."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    if len(numbers) == 1:
        return str(runs[0][0])
    texts = [str(first) if first == last else f"{first}..{last}" for first, last in runs]
    if len(texts) > _MAX_RUNS:
        texts = [*texts[: _MAX_RUNS - 1], "...", texts[-1]]
        return f"{{{','.join(texts)}: {len(numbers)}}}"
    return f"{{{','.join(texts)}}}"
