"""Why a layout loses against the best one."""

from __future__ import annotations

from gnomon.plan.estimate import Estimate
from gnomon.spec import TIME_TERMS
from gnomon.units import format_bytes

WORTH_NAMING = 0.01


def compare(estimate: Estimate, best: Estimate) -> tuple[dict[str, float], str]:
    """Return ({term: seconds that `estimate` needs more than `best`}, the terms that matter in words)."""
    ours, theirs = estimate.time.as_dict(), best.time.as_dict()
    slower = {term: ours[term] - theirs[term] for term in TIME_TERMS if ours[term] != theirs[term]}
    shares = {term: seconds / best.step_time_s for term, seconds in slower.items()}
    named = sorted((t for t, s in shares.items() if abs(s) >= WORTH_NAMING), key=lambda t: -abs(shares[t]))[:3]
    words = [f"{shares[term]:+.0%} {TIME_TERMS[term]}" for term in named]
    memory = estimate.memory.total_bytes - best.memory.total_bytes
    if estimate is best:
        return {}, "the best"
    if not words and not round(abs(memory)):
        words = ["as fast, the same memory"]
    elif not words:
        words = [f"as fast, {format_bytes(abs(memory))} {'more' if memory > 0 else 'less'} memory"]
    return slower, ", ".join(words)
