"""Text from files that may hold anything, made fit to print."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.visible import visible

MAX_TEXT = 1000
SHORT_TEXT = 80
MAX_NAMES = 10


def encodable(text: str) -> str:
    """Return text that every encoder takes, at most 1000 characters of it."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """Return text of one line that cannot steer a terminal: control characters are escaped."""
    return visible(encodable(text))


def shorten(text: str, more: bool = False) -> str:
    """Return at most 80 characters; with `more`, always with the mark that something is left out."""
    return text[:SHORT_TEXT] + "..." if more or len(text) > SHORT_TEXT else text


def told_apart(texts: Sequence[str]) -> list[str]:
    """Return texts of which no two are the same: one that was met before gets `#2`, `#3` and so on."""
    taken = set(texts)
    counts: dict[str, int] = {}
    result = []
    for text in texts:
        number = counts.get(text, 0) + 1
        while number > 1 and f"{text}#{number}" in taken:
            number += 1
        counts[text] = number
        result.append(text if number == 1 else f"{text}#{number}")
        taken.add(result[-1])
    return result


def listed(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"
