"""Closed forms as tables of paths: a step takes as long as the longest of them.

The passes of a step form a graph: a pass follows the one before it on its rank, and the one that makes its input. No
path through that graph takes longer than the step, and one takes as long. A row of a table says how often a path meets
each kind of pass. Rows were found by following the critical path of simulated steps over many lengths of the passes,
and those kept without which some case is more than 1 % too short (docs/schedules.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from gnomon.plan.schedules.case import Array, Case, Duration, Integers

Round = Callable[[Array, Array], Array]
_Terms = tuple[tuple[int, float], ...]  # (which of the nine times, factor)
_TERM = re.compile(r"([+-]?)(\d*)([a-z]?)(?:/(\d+))?")


class _Path(NamedTuple):
    """Factors of a path, by the symbol that they are multiplied with; '' is one."""

    passes: tuple[tuple[str, _Terms], ...]
    sends: tuple[tuple[str, float], ...]


class Paths:
    """Paths through a pipeline, one a line: `F B W | F B W | F B W | sends`.

    The three groups count the passes of the first part of the model (stage, or chunk of a folded model), of a middle
    one and of the last. A count is a sum of multiples of p (ranks), m (micro-batches) and of the letters in `rounds`:
    how often a path can go round a cycle of ranks that wait for each other, as a function of p and m.
    """

    def __init__(self, table: str, **rounds: Round) -> None:
        self.rounds = rounds
        self.paths = [_path(line) for line in table.strip().splitlines()]

    def longest(self, seconds: list[Array], send_s: Array, p: Array, m: Array) -> Array:
        """Return the longest path with and without transfers; `seconds` are the nine times of a row in their order."""
        symbols = {"p": p, "m": m, **{name: count(p, m) for name, count in self.rounds.items()}}
        sums: dict[_Terms, Array] = {}  # many paths share what they have of p or m
        longest = np.zeros((2, *seconds[0].shape))
        total, free = longest
        for path in self.paths:
            parts = []
            for symbol, terms in path.passes:
                if terms not in sums:
                    sums[terms] = _weighted(terms, seconds)
                parts.append(symbols[symbol] * sums[terms] if symbol else sums[terms])
            length = sum(parts[1:], start=parts[0])
            np.maximum(free, length, out=free)
            sends = sum(factor * (symbols[symbol] if symbol else 1.0) for symbol, factor in path.sends)
            np.maximum(total, length + sends * send_s, out=total)
        return longest


def longest_path(case: Case, seconds: list[Array], kind: Integers, tables: Mapping[int, Paths]) -> Duration:
    """Return the time of pipelines, each by the table of its kind; `seconds` as of `Paths.longest`."""
    total = np.empty((2, *seconds[0].shape))
    for key, table in tables.items():
        here = np.flatnonzero(kind == key)
        if here.size:
            send_s, p, m, *times = (x[..., here] for x in (case.send_s, case.pp, case.num_microbatches, *seconds))
            total[..., here] = table.longest(times, send_s, p, m)
    return Duration(total, total[0])


def _weighted(terms: _Terms, seconds: list[Array]) -> Array:
    """Return the sum of multiples of the times."""
    result = np.zeros_like(seconds[0])
    for index, factor in terms:
        result += seconds[index] if factor == 1.0 else factor * seconds[index]
    return result


def _path(line: str) -> _Path:
    """Read a row of a table."""
    *counts, sends = [_count(word) for group in line.split("|") for word in group.split()]
    symbols = dict.fromkeys(symbol for count in counts for symbol in count)
    passes = tuple(
        (symbol, tuple((i, count[symbol]) for i, count in enumerate(counts) if symbol in count)) for symbol in symbols
    )
    return _Path(passes, tuple(sends.items()))


def _count(word: str) -> dict[str, float]:
    """Read a count such as `2m-p/3+1` as factors by symbol."""
    found: dict[str, float] = {}
    for sign, number, symbol, divisor in (match.groups() for match in _TERM.finditer(word) if match.group()):
        value = float(number or 1) / float(divisor or 1)
        if value:
            found[symbol] = found.get(symbol, 0.0) + (-value if sign == "-" else value)
    return found
