"""`Comparison`: prediction and measurement side by side, term by term, with the gap explained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gnomon.spec import Noun

SCHEMA_VERSION = 1


class Term(Noun):
    """One quantity, predicted and measured."""

    name: str
    label: str
    unit: Literal["s", "bytes", "1/s", "fraction", "count"]
    predicted: float | None
    measured: float | None
    explanation: str = Field(default="", description="why they differ, in one sentence")

    @property
    def difference(self) -> float | None:
        """Measured minus predicted."""
        if self.predicted is None or self.measured is None:
            return None
        return self.measured - self.predicted

    @property
    def relative_error(self) -> float | None:
        """(Predicted - measured) / measured; negative means that the prediction was too low."""
        if self.difference is None or not self.measured:
            return None
        return -self.difference / self.measured


class Comparison(Noun):
    """`headline` holds step time, tokens/s, MFU and peak memory; `time` and `memory` add up to the headline."""

    schema_version: int = SCHEMA_VERSION
    title: str
    headline: tuple[Term, ...]
    time: tuple[Term, ...]
    memory: tuple[Term, ...]
    summary: tuple[str, ...] = Field(description="the gap in plain words, the largest cause first")
