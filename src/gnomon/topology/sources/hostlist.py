"""SLURM host lists: `node[001-016,020]` to names and back.

The packages that do this are copyleft (python-hostlist GPL, ClusterShell LGPL), which an Apache project cannot
depend on, hence this small one. Grammar: `HOSTLIST EXPRESSIONS` in the manual page of scontrol.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable

from gnomon.topology.graph import TopologyError

MAX_NAMES = 2**17
"""More names than any cluster has; a longer list is a mistake and would only fill the memory."""

_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


def expand(hostlist: str) -> list[str]:
    """Return the names of a host list in its order; raise TopologyError where it is malformed.

    Several brackets multiply (`rack[0-1]node[1-2]`), and a leading zero keeps its width (`[08-10]`: 08, 09, 10).
    """
    if not hostlist.strip():
        raise TopologyError("A host list is empty; expected names such as node[001-016,020].")
    names: list[str] = []
    for item in _split(hostlist, hostlist):
        pieces = [piece for piece in re.split(r"(\[[^\[\]]*\])", item) if piece]
        choices = [_numbers(piece, hostlist) if piece[0] == "[" else [piece] for piece in pieces]
        if len(names) + math.prod(len(choice) for choice in choices) > MAX_NAMES:
            raise _too_many(hostlist)
        names.extend("".join(combination) for combination in itertools.product(*choices))
    return names


def compress(names: Iterable[str]) -> str:
    """Return a host list that expands to exactly these names in this order."""
    items: list[str] = []
    for (prefix, numbered), group in itertools.groupby(map(_parts, names), key=lambda part: (part[0], part[1] != "")):
        if not numbered:
            items.extend(prefix for _ in group)
            continue
        runs = _runs([number for _, number in group])
        single = len(runs) == 1 and "-" not in runs[0]
        items.append(prefix + (runs[0] if single else f"[{','.join(runs)}]"))
    return ",".join(items)


def _split(text: str, whole: str) -> list[str]:
    """Split at the commas outside brackets."""
    items, start, inside = [], 0, False
    for position, character in enumerate(text):
        if character == "[":
            if inside:
                raise TopologyError(f"Host list '{whole}' opens a bracket inside a bracket.")
            inside = True
        elif character == "]":
            if not inside:
                raise TopologyError(f"Host list '{whole}' closes a bracket that was never opened.")
            inside = False
        elif character == "," and not inside:
            items.append(text[start:position])
            start = position + 1
    if inside:
        raise TopologyError(f"Host list '{whole}' opens a bracket and does not close it.")
    items = [item.strip() for item in (*items, text[start:])]
    if not all(items):
        raise TopologyError(f"Host list '{whole}' has an empty name between two commas or at an end.")
    return items


def _numbers(bracket: str, whole: str) -> list[str]:
    numbers: list[str] = []
    for part in bracket[1:-1].split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise TopologyError(
                f"Host list '{whole}' has '{part}' in brackets; expected numbers and ranges such as 1-8."
            )
        low, high = match[1], match[2] or match[1]
        if int(high) < int(low):
            raise TopologyError(f"Host list '{whole}' has the range {part}, which runs backwards.")
        if int(high) - int(low) >= MAX_NAMES:
            raise _too_many(whole)
        numbers.extend(str(number).zfill(len(low)) for number in range(int(low), int(high) + 1))
    return numbers


def _too_many(hostlist: str) -> TopologyError:
    return TopologyError(f"Host list '{hostlist}' stands for more than {MAX_NAMES} names.")


def _parts(name: str) -> tuple[str, str]:
    match = _NUMBERED.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _runs(numbers: list[str]) -> list[str]:
    """Return `["1-3", "7"]` for the numbers 1, 2, 3, 7."""
    runs: list[list[str]] = []
    for number in numbers:
        if runs and number == str(int(runs[-1][-1]) + 1).zfill(len(runs[-1][0])):
            runs[-1].append(number)
        else:
            runs.append([number])
    return [run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
