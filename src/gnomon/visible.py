"""Text from outside as it may be shown: no character of it can steer a terminal or break a document."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return text of one line with each character that prints nothing written as its escape, such as `\x1b`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
