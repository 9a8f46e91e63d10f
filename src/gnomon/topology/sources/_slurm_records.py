"""The `Key=Value Key=Value` lines that SLURM's configuration files and scontrol share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gnomon.errors import did_you_mean
from gnomon.topology.graph import TopologyError

_PAIR = re.compile(r'\s*([A-Za-z_]+)\s*=\s*("[^"]*"|\S+)(?=\s|$)')


@dataclass(frozen=True)
class Record:
    """One line: values by key, in the spelling of the manual, and where the line is for messages."""

    where: str
    values: dict[str, str]


def read_records(text: str, keys: Sequence[str], source: str) -> Iterator[Record]:
    """Yield the records of a text; raise TopologyError with the line for what is not `Key=Value` or an unknown key.

    Keys are case-insensitive, `#` starts a comment and a backslash at the end continues a line, as in slurm.conf(5).
    """
    spelling = {key.lower(): key for key in keys}
    for number, line in _logical_lines(text):
        where = f"{source}, line {number}"
        if line.lower().startswith("include "):
            raise TopologyError(f"{where}: '{line}' is not followed. Give the text of that file in its place.")
        values: dict[str, str] = {}
        position = 0
        while position < len(line):
            match = _PAIR.match(line, position)
            if match is None:
                raise TopologyError(f"{where}: expected Key=Value, found '{line[position:].strip()}'.")
            key = spelling.get(match[1].lower())
            if key is None:
                raise TopologyError(f"{where}: unknown key '{match[1]}'. {did_you_mean(match[1], keys)}")
            if key in values:
                raise TopologyError(f"{where}: '{key}' is given twice.")
            values[key] = match[2].strip('"')
            position = match.end()
        yield Record(where, values)


def read_numbers(record: Record, key: str) -> list[int]:
    """Return the whole numbers, with commas between them, under `key`; none where the record lacks it."""
    text = record.values.get(key)
    if text is None:
        return []
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise TopologyError(f"{record.where}: {key} is '{text}'; expected numbers such as 30,120.") from None


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of the first line and the text of each line, without comments, joined where continued."""
    first, parts = 0, ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.split("#", 1)[0].rstrip()
        first = first or number
        parts += line.removesuffix("\\")
        if not line.endswith("\\"):
            if parts.strip():
                yield first, parts.strip()
            first, parts = 0, ""
    if parts.strip():
        yield first, parts.strip()
