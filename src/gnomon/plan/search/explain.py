"""Why a layout loses against the best one."""

from __future__ import annotations

from gnomon.plan.estimate import Estimate
from gnomon.plan.search.result import Objective
from gnomon.spec import MEMORY_TERMS, TIME_TERMS
from gnomon.units import format_bytes

WORTH_NAMING = 0.01
WORTH_A_FIGURE = 0.0005
"""Smaller differences would be shown as 0.0%."""
SHARES: dict[Objective, str] = {
    "step_time": "the best step time",
    "memory": "the memory of the best",
    "cost": "the accelerator-hours of the best: time x accelerators",
}
ALIKE: dict[Objective, str] = {"step_time": "as fast", "memory": "as small", "cost": "as cheap"}
TOTALS: dict[Objective, str] = {"step_time": "step time", "memory": "memory", "cost": "accelerator-hours"}


def compare(estimate: Estimate, best: Estimate, objective: Objective = "step_time") -> tuple[dict[str, float], str]:
    """Return ({term: seconds that `estimate` needs more than `best`}, the terms of the objective that matter in words).

    The words give shares of what the best has of the objective (SHARES).
    """
    if estimate is best:
        return {}, "the best"
    ours, theirs = estimate.time.as_dict(), best.time.as_dict()
    slower = {term: ours[term] - theirs[term] for term in TIME_TERMS if ours[term] != theirs[term]}
    return slower, _why(estimate, best, objective)


def _why(estimate: Estimate, best: Estimate, objective: Objective) -> str:
    ours, theirs = _amounts(estimate, objective), _amounts(best, objective)
    whole = sum(theirs.values())
    shares = {term: (ours[term] - theirs[term]) / whole for term in ours}
    named = sorted((t for t, s in shares.items() if abs(s) >= WORTH_NAMING), key=lambda t: -abs(shares[t]))[:3]
    if named:
        return ", ".join(f"{shares[term]:+.0%} {term}" for term in named)
    more = sum(shares.values())
    total = ALIKE[objective] if abs(more) < WORTH_A_FIGURE else f"{more:+.1%} {TOTALS[objective]}"
    return ", ".join([total, *_others(estimate, best, objective)])


def _amounts(estimate: Estimate, objective: Objective) -> dict[str, float]:
    """Return what adds up to the objective, by the words of each term: bytes, seconds, or accelerator-seconds."""
    if objective == "memory":
        return {MEMORY_TERMS[term]: size for term, size in estimate.memory.as_dict().items()}
    ranks = estimate.layout.num_ranks if objective == "cost" else 1
    return {TIME_TERMS[term]: ranks * seconds for term, seconds in estimate.time.as_dict().items()}


def _others(estimate: Estimate, best: Estimate, objective: Objective) -> list[str]:
    """Return in what else a layout differs that is as good as the best, or that it does not."""
    differences = []
    slower = estimate.step_time_s / best.step_time_s - 1
    told = objective == "step_time" or (objective == "cost" and estimate.layout.num_ranks == best.layout.num_ranks)
    if not told and abs(slower) >= WORTH_A_FIGURE:
        differences.append(f"{slower:+.1%} step time")
    memory = estimate.memory.total_bytes - best.memory.total_bytes
    if objective != "memory":
        words = f"{format_bytes(abs(memory))} {'more' if memory > 0 else 'less'} memory"
        differences.append(words if round(abs(memory)) else "the same memory")
    return differences
