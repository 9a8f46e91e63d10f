"""Why prediction and measurement differ, in words that only repeat what the numbers say."""

from __future__ import annotations

from collections.abc import Iterable

from gnomon.plan.estimate import Estimate, OperatorEstimate
from gnomon.profile.measurement import Measurement
from gnomon.report.comparison import Term
from gnomon.report.words import (
    error_words,
    format_difference,
    format_value,
    join_words,
    plural,
    share_words,
    three_digits,
)
from gnomon.units import format_bandwidth, format_count, format_flops, format_percent, format_seconds

AGREEMENT = 0.05
"""A prediction within this relative error is called right."""
CAUSE_SHARE = 0.10
"""A term that makes less than this share of the gap is not named as a cause."""
PROFILER_SLOWDOWN = 1.10
"""A profiled step that is longer or shorter by more than this makes the split into terms uncertain."""
UNSTEADY = 2.0
"""Steps whose 90th percentile is more than this multiple of the 10th were disturbed."""


def explain_headline(term: Term, estimate: Estimate | None, measurement: Measurement | None) -> str:
    """Return what a headline figure counts."""
    if term.name == "step_time_s":
        steps = f" Measured: median of {plural(measurement.num_steps, 'steady step')}." if measurement else ""
        return f"Wall time of one optimizer step.{steps}"
    if term.name == "tokens_per_s":
        noun = estimate or measurement
        return f"{noun.workload.tokens_per_step:,} tokens per step over the step time, all ranks." if noun else ""
    if term.name == "mfu":
        peak = f" Peak: {estimate.cluster.peak_source}." if estimate else ""
        return f"FLOPs that the model needs over FLOPs that the device could do.{peak}"
    if term.name == "peak_memory_bytes":
        return "Memory of one rank: resident memory on a CPU, reserved memory on CUDA."
    return "Tensors alive at the peak on one rank, without framework and allocator."


def explain_time(term: Term, estimate: Estimate | None, measurement: Measurement | None) -> str:
    """Return why a time term differs: rates where the work is known, otherwise what the term holds."""
    if estimate is None or measurement is None:
        return ""
    if term.name == "unattributed_s":
        return "The terms of one side do not add up to its step time; this is the rest."
    missing = _one_sided(term, 1e-3 * measurement.step_time_s)
    if missing is not None:
        return missing
    operators = [operator for operator in estimate.operators if operator.term == term.name]
    if term.name == "idle_s":
        return _idle(estimate)
    return _with_verdict(_verdict(term, "Slower", "Faster"), _rates(term, operators))


def explain_memory(term: Term, estimate: Estimate | None, measurement: Measurement | None) -> str:
    """Return why a memory term differs, per parameter or per token where that is what it scales with."""
    if estimate is None or measurement is None:
        return ""
    if term.name == "unattributed_bytes":
        return "The terms of one side do not add up to its peak; this is the rest."
    missing = _one_sided(term, 1e-3 * measurement.peak_memory_bytes)
    if missing is not None:
        return missing
    return _with_verdict(_verdict(term, "More", "Less"), _memory_scale(term, estimate))


def summarise(
    estimate: Estimate,
    measurement: Measurement,
    headline: Iterable[Term],
    time: Iterable[Term],
    memory: Iterable[Term],
) -> tuple[str, ...]:
    """Return the gap in plain words, the largest cause first."""
    terms = {term.name: term for term in headline}
    step = terms["step_time_s"]
    sentences = [
        f"The plan said {_value(step, 'predicted')} per step and the step took {_value(step, 'measured')}: "
        f"the prediction was {error_words(step)}.",
        *_causes(step, list(time)),
        *_spread(estimate, measurement),
        *_profiler(measurement),
        *_utilisation(terms["mfu"], estimate),
        *_memory_sentences(terms["peak_memory_bytes"], list(memory)),
    ]
    return tuple(sentences)


def _one_sided(term: Term, negligible: float) -> str | None:
    """Return a sentence when one side or both have (almost) nothing, else None."""
    predicted, measured = term.predicted or 0.0, term.measured or 0.0
    if max(predicted, measured) <= negligible:
        return "Negligible on both sides."
    if predicted == 0:
        return f"The plan has no cost for this; {format_value(measured, term.unit)} were measured."
    if measured == 0:
        return "Planned for, but none was measured; look for it under another term."
    return None


def _verdict(term: Term, more: str, less: str) -> str:
    error = term.relative_error
    if error is None or abs(error) <= AGREEMENT:
        return "As predicted"
    return f"{less if error > 0 else more} than predicted"


def _with_verdict(verdict: str, words: str) -> str:
    return f"{verdict}: {words}" if words else f"{verdict}."


def _rates(term: Term, operators: list[OperatorEstimate]) -> str:
    flops = sum(operator.flops for operator in operators)
    traffic = sum(operator.traffic_bytes for operator in operators)
    if term.name == "data_s":
        return "time that the step waits for its batch."
    if not term.predicted or not term.measured or not (flops or traffic):
        return ""
    if flops and term.name in ("matmul_s", "attention_s", "embedding_head_s"):
        before, after = (three_digits(format_flops(flops / time, True)) for time in (term.predicted, term.measured))
        return f"{three_digits(format_flops(flops))} at {after}, predicted {before}."
    before, after = (three_digits(format_bandwidth(traffic / time)) for time in (term.predicted, term.measured))
    return f"{format_value(traffic, 'bytes')} moved at {after}, predicted {before}."


def _idle(estimate: Estimate) -> str:
    calls = sum(operator.calls for operator in estimate.operators)
    planned = f"Planned: the host launches {calls:,.0f} operators. " if calls else ""
    waiting = ", such as waiting for other ranks" if estimate.layout.num_ranks > 1 else ""
    return f"{planned}Measured: the part of the step in which no operator ran{waiting}."


def _memory_scale(term: Term, estimate: Estimate) -> str:
    if term.name in ("weights_bytes", "gradients_bytes", "optimizer_bytes"):
        count = max(estimate.num_parameters, 1)
        before, after = (f"{(value or 0.0) / count:.2f}" for value in (term.predicted, term.measured))
        return f"{three_digits(format_count(count))} parameters at {after} bytes each, predicted {before}."
    if term.name == "activations_bytes":
        tokens = estimate.workload.micro_batch * estimate.workload.seq_len
        before, after = (format_value((value or 0.0) / tokens, "bytes") for value in (term.predicted, term.measured))
        return f"{after} per token of a micro-batch, predicted {before}."
    if term.name == "communication_bytes":
        return "gradient buckets and buffers of the collectives."
    return "the process outside its tensors: interpreter, libraries and what the allocator holds in reserve."


def _causes(step: Term, time: list[Term]) -> list[str]:
    gap = step.difference or 0.0
    measured = step.measured or 0.0
    if abs(gap) <= 0.02 * measured:
        return _cancelling(gap, measured, time)
    along = _largest([term for term in time if (term.difference or 0.0) * gap > 0])
    against = _largest([term for term in time if (term.difference or 0.0) * gap < 0])
    named = [term for term in along if (term.difference or 0.0) / gap >= CAUSE_SHARE][:3]
    sentences = [_cause(named[0], gap)] if named else []
    if len(named) > 1:
        sentences.append(f"Then {join_words([_cause_short(term) for term in named[1:]])}.")
    opposite = [term for term in against if -(term.difference or 0.0) / gap >= CAUSE_SHARE][:2]
    if opposite:
        sentences.append(f"Against the gap: {join_words([_cause_short(term) for term in opposite])}.")
    return sentences


def _cancelling(gap: float, measured: float, time: list[Term]) -> list[str]:
    largest = _largest(time)[:2]
    errors = sum(abs(term.difference or 0.0) for term in time)
    if not largest or errors <= max(AGREEMENT * measured, 3 * abs(gap)):
        return ["No single term is far off."]
    return [f"Errors of single terms cancel: {join_words([_cause_short(term) for term in largest])}."]


def _largest(terms: list[Term]) -> list[Term]:
    return sorted(terms, key=lambda term: -abs(term.difference or 0.0))


def _cause(term: Term, gap: float) -> str:
    share = (term.difference or 0.0) / gap
    values = f"{_value(term, 'measured')} instead of {_value(term, 'predicted')}"
    if share > 1.0:
        difference, whole = format_difference(term.difference, term.unit), format_difference(gap, term.unit)
        return f"The largest cause is {term.label}: {values} ({difference}, against a gap of {whole} in all)."
    words = share_words(share)
    return f"{words[:1].upper()}{words[1:]} of the gap is {term.label}: {values}."


def _cause_short(term: Term) -> str:
    return f"{term.label} ({format_difference(term.difference, term.unit)})"


def _spread(estimate: Estimate, measurement: Measurement) -> list[str]:
    low, high = measurement.step_time_p10_s, measurement.step_time_p90_s
    if not 0 < low < high:
        return []
    place = "inside" if low <= estimate.step_time_s <= high else "outside"
    restless = " So wide a spread points to other work on the machine." if high > UNSTEADY * low else ""
    return [
        f"Eight of ten steps took between {format_seconds(low)} and {format_seconds(high)}; "
        f"the prediction lies {place} that range.{restless}"
    ]


def _utilisation(mfu: Term, estimate: Estimate) -> list[str]:
    if mfu.measured is None:
        return ["MFU is unknown, because the peak of the device is."]
    predicted = "" if mfu.predicted is None else f", predicted {format_percent(mfu.predicted)}"
    return [f"MFU was {format_percent(mfu.measured)}{predicted}; its peak is the {_peak(estimate)}."]


def _peak(estimate: Estimate) -> str:
    source = estimate.cluster.peak_source
    return "peak of the catalog" if source == "catalog" else source


def _memory_sentences(peak: Term, memory: list[Term]) -> list[str]:
    if not peak.measured:
        return []
    largest = _largest(memory)[0]
    sentence = (
        f"Peak memory was {_value(peak, 'measured')}, predicted {_value(peak, 'predicted')} ({error_words(peak)})"
    )
    if abs(largest.difference or 0.0) > 0.01 * peak.measured:
        return [f"{sentence}; the largest difference is {_cause_short(largest)}."]
    return [f"{sentence}."]


def _profiler(measurement: Measurement) -> list[str]:
    step_s, profiled_s = measurement.step_time_s, measurement.profiled_step_time_s
    if not step_s or not profiled_s:
        return []
    if profiled_s > PROFILER_SLOWDOWN * step_s:
        return [
            f"The profiler made steps {100 * (profiled_s / step_s - 1):.0f}% longer. The step time is from steps "
            "without it, but their split into terms is less certain."
        ]
    if profiled_s * PROFILER_SLOWDOWN < step_s:
        return [
            f"Profiled steps took {format_seconds(profiled_s)}, less than the {format_seconds(step_s)} of the run: "
            "something slowed the run that the profiler did not see, and the split into terms is less certain."
        ]
    return []


def _value(term: Term, side: str) -> str:
    return format_value(getattr(term, side), term.unit)
