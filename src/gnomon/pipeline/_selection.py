"""Choose steps of a pipeline by name, by position or by a range of either."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.errors import PipelineError, did_you_mean


def select_labels(steps: str | Sequence[str | int], labels: Sequence[str]) -> list[str]:
    """Return the labels that `steps` chooses, in the order of `labels`; raise PipelineError for one that is unknown.

    `'plan,train'` and `'0,2'` choose single steps; `'1:3'` and `'plan:'` a range without its end, as Python slices.
    """
    parts = steps.split(",") if isinstance(steps, str) else [str(step) for step in steps]
    chosen: set[int] = set()
    for part in (part.strip() for part in parts):
        chosen |= _range(part, labels) if ":" in part else {_position(part, labels)}
    if not chosen:
        raise PipelineError(f"'{steps}' chooses no step of this pipeline. Its steps are {', '.join(labels)}.")
    return [label for index, label in enumerate(labels) if index in chosen]


def _range(part: str, labels: Sequence[str]) -> set[int]:
    start, _, stop = (text.strip() for text in part.partition(":"))
    first = _position(start, labels) if start else 0
    last = _position(stop, labels, end=True) if stop else len(labels)
    return set(range(first, last))


def _position(text: str, labels: Sequence[str], end: bool = False) -> int:
    if text in labels:
        return labels.index(text)
    if not text.lstrip("-").isdigit():
        raise PipelineError(f"The pipeline has no step '{text}'. {did_you_mean(text, labels)}")
    number = int(text) + (len(labels) if text.startswith("-") else 0)
    if not 0 <= number < len(labels) + end:
        raise PipelineError(f"The pipeline has no step {text}; it has {len(labels)}, numbered from 0.")
    return number
