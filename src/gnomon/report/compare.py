"""Estimate and measurement to `Comparison`: pure arithmetic, term by term."""

from __future__ import annotations

from typing import Any

from gnomon.errors import ReportError
from gnomon.plan.estimate import Estimate
from gnomon.profile.measurement import Measurement
from gnomon.report.comparison import Comparison, Term
from gnomon.report.explain import explain_headline, explain_memory, explain_time, summarise
from gnomon.spec import MEMORY_TERMS, OPTIONAL_TERMS, TIME_TERMS

UNATTRIBUTED_SHARE = 1e-3
"""A breakdown that misses its total by less than this share is taken as complete."""


def compare(estimate: Estimate, measurement: Measurement) -> Comparison:
    """Return both side by side; raise ReportError when they do not describe the same work."""
    _require_same_work(estimate, measurement)
    headline = headline_terms(estimate, measurement)
    time, memory = time_terms(estimate, measurement), memory_terms(estimate, measurement)
    return Comparison(
        title=f"{estimate.model.name} on {estimate.cluster.name}",
        headline=headline,
        time=time,
        memory=memory,
        summary=summarise(estimate, measurement, headline, time, memory),
    )


def headline_terms(estimate: Estimate | None, measurement: Measurement | None) -> tuple[Term, ...]:
    """Return step time, tokens/s, MFU, peak memory and peak tensor memory; a missing side is None."""
    e, m = estimate, measurement
    terms = (
        ("step_time_s", "step time", "s", e and e.step_time_s, m and m.step_time_s),
        ("tokens_per_s", "tokens per second", "1/s", e and e.tokens_per_s, m and m.tokens_per_s),
        ("mfu", "model FLOPs utilisation (MFU)", "fraction", e and e.mfu, m and m.mfu),
        ("peak_memory_bytes", "peak memory", "bytes", e and e.memory.total_bytes, m and m.peak_memory_bytes),
        ("peak_tensor_bytes", "peak tensor memory", "bytes", e and e.memory.tensor_bytes, m and m.peak_tensor_bytes),
    )
    return tuple(_explained(Term.model_validate(_fields(*row)), explain_headline, e, m) for row in terms)


def time_terms(estimate: Estimate | None, measurement: Measurement | None) -> tuple[Term, ...]:
    """Return the terms of `TimeBreakdown` in seconds; they add up to the step time on each side."""
    terms = _breakdown_terms(
        "s",
        TIME_TERMS,
        (estimate.time.as_dict(), estimate.step_time_s) if estimate else None,
        (measurement.time.as_dict(), measurement.step_time_s) if measurement else None,
    )
    return tuple(_explained(term, explain_time, estimate, measurement) for term in terms)


def memory_terms(estimate: Estimate | None, measurement: Measurement | None) -> tuple[Term, ...]:
    """Return the terms of `MemoryBreakdown` in bytes; they add up to the peak memory on each side."""
    terms = _breakdown_terms(
        "bytes",
        MEMORY_TERMS,
        (estimate.memory.as_dict(), estimate.memory.total_bytes) if estimate else None,
        (measurement.memory.as_dict(), measurement.peak_memory_bytes) if measurement else None,
    )
    return tuple(_explained(term, explain_memory, estimate, measurement) for term in terms)


def _breakdown_terms(
    unit: str, labels: dict[str, str], predicted: tuple[Any, float] | None, measured: tuple[Any, float] | None
) -> list[Term]:
    rows = [
        _fields(name, label, unit, predicted and predicted[0][name], measured and measured[0][name])
        for name, label in labels.items()
        if name not in OPTIONAL_TERMS or any(side and side[0][name] for side in (predicted, measured))
    ]
    remainders = [_remainder(*side) if side else None for side in (predicted, measured)]
    if any(remainders):
        rows.append(_fields(f"unattributed_{unit}", "not attributed to a term", unit, *remainders))
    return [Term.model_validate(row) for row in rows]


def _remainder(terms: dict[str, float], total: float) -> float:
    """Return what the terms leave of the total; rounding does not count."""
    rest = total - sum(terms.values())
    return rest if abs(rest) > UNATTRIBUTED_SHARE * total else 0.0


def _fields(name: str, label: str, unit: str, predicted: Any, measured: Any) -> dict[str, Any]:
    return {"name": name, "label": label, "unit": unit, "predicted": predicted, "measured": measured}


def _explained(term: Term, explain: Any, estimate: Estimate | None, measurement: Measurement | None) -> Term:
    return term.model_copy(update={"explanation": explain(term, estimate, measurement)})


def _require_same_work(estimate: Estimate, measurement: Measurement) -> None:
    differences = [
        f"{part}.{key} is {predicted!r} in the estimate and {measured!r} in the measurement"
        for part in ("model", "layout", "workload")
        for key, predicted, measured in _differences(getattr(estimate, part), getattr(measurement, part))
    ]
    if differences:
        raise ReportError(
            f"The estimate and the measurement do not describe the same work: {'; '.join(differences)}. "
            "Compare a run with the estimate of its own config.yaml."
        )


def _differences(first: Any, second: Any) -> list[tuple[str, Any, Any]]:
    one, other = first.to_mapping(), second.to_mapping()
    return [(key, one[key], other[key]) for key in one if key not in ("name", "source") and one[key] != other[key]]
