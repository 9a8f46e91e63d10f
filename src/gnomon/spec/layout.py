"""`Layout`: how a model is split over ranks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from gnomon.spec._noun import Noun


class Layout(Noun):
    """Degrees of parallelism. Ranks are numbered with `tp` fastest: one reshape to (pp, dp, cp, tp)."""

    dp: PositiveInt = Field(default=1, description="data-parallel replicas")
    tp: PositiveInt = Field(default=1, description="tensor-parallel ranks")
    pp: PositiveInt = Field(default=1, description="pipeline stages")
    cp: PositiveInt = Field(default=1, description="context-parallel ranks")
    ep: PositiveInt = Field(default=1, description="expert-parallel ranks")
    zero_stage: Literal[0, 1, 2, 3] = 0

    @property
    def num_ranks(self) -> int:
        """Ranks that this layout needs (experts share the data-parallel ranks)."""
        return self.dp * self.tp * self.pp * self.cp
