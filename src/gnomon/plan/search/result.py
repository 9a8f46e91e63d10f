"""What a search found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from gnomon.plan.estimate import Estimate
from gnomon.spec import ClusterSpec, FrozenMap, Layout, ModelSpec, Noun, Workload

Objective = Literal["step_time", "memory", "cost"]


class Candidate(Noun):
    """One layout that can run and fits."""

    num_accelerators: PositiveInt
    number: NonNegativeInt = Field(description="its place in the search space")
    layout: Layout
    workload: Workload
    step_time_s: NonNegativeFloat
    peak_memory_bytes: NonNegativeFloat
    accelerator_hours_per_step: NonNegativeFloat
    cost_per_step: NonNegativeFloat | None = Field(default=None, description="in the currency of the price")


class Ranked(Noun):
    """A candidate among the best, with its whole estimate and what it loses against the best."""

    candidate: Candidate
    estimate: Estimate
    slower_s: FrozenMap[str, float] = Field(
        default_factory=dict, description="seconds by term that it needs more (or less) than the best"
    )
    why: str = Field(default="", description="what it loses in the objective, in words")


class SearchResult(Noun):
    """The best layouts, those that no other beats in time, memory and cost together, and what was looked at."""

    model: ModelSpec
    cluster: ClusterSpec
    objective: Objective
    accelerators: tuple[PositiveInt, ...] = Field(default=(), description="numbers that were searched, ascending")
    num_candidates: NonNegativeInt
    num_evaluated: NonNegativeInt
    num_fitting: NonNegativeInt
    rejected: FrozenMap[str, NonNegativeInt] = Field(default_factory=dict, description="candidates by reason")
    best: tuple[Ranked, ...] = ()
    pareto: tuple[Candidate, ...] = Field(default=(), description="by step time")
    seconds: NonNegativeFloat = Field(default=0.0, description="of looking at all candidates")

    @property
    def shows_cost(self) -> bool:
        """Whether accelerators and cost tell the layouts apart: several numbers of them, a price, or cost as aim."""
        priced = any(c.cost_per_step is not None for c in self.pareto)
        return priced or len(self.accelerators) > 1 or self.objective == "cost"
