"""Short labels of switches, which a drawing has room for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

LABEL_CHARACTERS = 18


def short_labels(names: Sequence[str]) -> dict[str, str]:
    """Return a label for each of these different names, such that no two are alike.

    A long name keeps its two ends; where those are alike, what differs between them; at last it is numbered.
    """
    labels = {name: shorten(name) for name in names}
    for alike in _alike(labels):
        labels |= _differing_words(alike)
    still = [name for alike in _alike(labels) for name in alike]
    return labels | {name: f"{name[: LABEL_CHARACTERS - 6]}… {index}" for index, name in enumerate(still, start=1)}


def shorten(name: str) -> str:
    """Return a name, or the two ends of a long one."""
    if len(name) <= LABEL_CHARACTERS:
        return name
    return f"{name[: LABEL_CHARACTERS // 2 - 1]}…{name[-LABEL_CHARACTERS // 2 + 1 :]}"


def _alike(labels: Mapping[str, str]) -> list[list[str]]:
    """Return the names of each label that several have."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, label in labels.items():
        names[label].append(name)
    return [alike for alike in names.values() if len(alike) > 1]


def _differing_words(names: Sequence[str]) -> dict[str, str]:
    """Return the words in which the names differ, and as many of the common words before them as there is room for."""
    starts = [0, *(match.end() for match in re.finditer(r"[\W_]", _common_start(names)))]
    rests = [name[starts[-1] :] for name in names]
    tail = _common_start([rest[::-1] for rest in rests])[::-1]
    end = len(re.sub(r"^[^\W_]+", "", tail))
    room = LABEL_CHARACTERS - len("……") - max(map(len, rests)) + end
    start = next((place for place in starts if starts[-1] - place <= room), starts[-1])
    return {name: shorten(f"…{name[start : len(name) - end]}…") for name in names}


def _common_start(texts: Sequence[str]) -> str:
    lowest, highest = min(texts), max(texts)
    pairs = zip(lowest, highest, strict=False)
    return lowest[: next((place for place, (first, second) in enumerate(pairs) if first != second), len(lowest))]
