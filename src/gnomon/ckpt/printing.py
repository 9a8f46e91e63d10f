"""Text from files that may hold anything, made fit to print."""

from __future__ import annotations

MAX_TEXT = 1000
SHORT_TEXT = 80


def encodable(text: str) -> str:
    """Return text that every encoder takes, at most 1000 characters of it."""
    return text[:MAX_TEXT].encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str) -> str:
    """Return text of one line that cannot steer a terminal: control characters are escaped."""
    plain = encodable(text)
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in plain)


def shorten(text: str, more: bool = False) -> str:
    """Return at most 80 characters; with `more`, always with the mark that something is left out."""
    return text[:SHORT_TEXT] + "..." if more or len(text) > SHORT_TEXT else text
