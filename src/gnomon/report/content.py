"""What the report says, before it becomes HTML, Markdown or JSON: pure functions from inputs to text and tables."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from gnomon.report import tables
from gnomon.report.commands import measure_command, plan_command, start_command, train_command
from gnomon.report.compare import headline_terms, memory_terms, time_terms
from gnomon.report.comparison import Term
from gnomon.report.inputs import ReportInputs
from gnomon.report.tables import Table
from gnomon.report.words import error_words, format_time, format_value, plural, three_digits
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.units import format_count, format_percent

GOOD_ERROR, FAIR_ERROR = 0.05, 0.15
CARD_LABELS = {
    "step_time_s": "Step time",
    "tokens_per_s": "Tokens per second",
    "mfu": "MFU",
    "peak_memory_bytes": "Peak memory per rank",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """One headline figure. `quality` grades the prediction; the bars are percentages of the larger value."""

    label: str
    predicted: str
    measured: str
    verdict: str
    quality: str
    predicted_bar: float
    measured_bar: float


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that the run does not have, and the command that makes it."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """Everything that the report says."""

    title: str
    created: str
    facts: tuple[tuple[str, str], ...]
    answer: str
    cards: tuple[Card, ...]
    notices: tuple[Notice, ...]
    summary: tuple[str, ...]
    headline: tuple[Term, ...]
    time: tuple[Term, ...]
    memory: tuple[Term, ...]
    tables: dict[str, Table]
    assumptions: tuple[str, ...]
    commands: tuple[tuple[str, str], ...]


def build_content(inputs: ReportInputs) -> Content:
    """Return what the report says about these inputs."""
    estimate, measurement = inputs.estimate, inputs.measurement
    headline = headline_terms(estimate, measurement)
    time, memory = time_terms(estimate, measurement), memory_terms(estimate, measurement)
    summary = inputs.comparison.summary if inputs.comparison else ()
    return Content(
        title=_title(inputs),
        created=format_time(inputs.created),
        facts=tuple(_facts(inputs)),
        answer=summary[0] if summary else _answer(inputs),
        cards=tuple(_card(term) for term in headline if term.name in CARD_LABELS),
        notices=tuple(_notices(inputs)),
        summary=summary[1:],
        headline=headline,
        time=time,
        memory=memory,
        tables=tables.all_tables(inputs, headline, time, memory),
        assumptions=estimate.assumptions if estimate else (),
        commands=tuple(_commands(inputs)),
    )


def model_words(model: ModelSpec, num_parameters: int | None) -> str:
    """Return a model in one line, as `'3.16 M parameters, 4 layers of width 256, 8 heads'`."""
    count = f"{three_digits(format_count(num_parameters))} parameters, " if num_parameters else ""
    return f"{count}{plural(model.num_layers, 'layer')} of width {model.hidden_size}, {plural(model.num_heads, 'head')}"


def layout_words(layout: Layout) -> str:
    """Return a layout in one line, as `'2 ranks (data parallel 2)'`."""
    names = {
        "dp": "data parallel",
        "tp": "tensor parallel",
        "pp": "pipeline stages",
        "cp": "context parallel",
        "ep": "expert parallel",
    }
    parts = [f"{name} {getattr(layout, key)}" for key, name in names.items() if getattr(layout, key) > 1]
    parts += [f"ZeRO stage {layout.zero_stage}"] if layout.zero_stage else []
    return plural(layout.num_ranks, "rank") + (f" ({', '.join(parts)})" if parts else "")


def workload_words(workload: Workload) -> str:
    """Return a workload in one line, as `'16 sequences of 256 tokens per step, fp32'`."""
    micro = "" if workload.micro_batch == workload.global_batch else f" in micro-batches of {workload.micro_batch}"
    batch = plural(workload.global_batch, "sequence")
    return f"{batch} of {workload.seq_len:,} tokens per step{micro}, {workload.precision}"


def _title(inputs: ReportInputs) -> str:
    noun = inputs.estimate or inputs.measurement
    assert noun is not None
    machine = inputs.estimate.cluster.name if inputs.estimate else inputs.measurement and inputs.measurement.device
    return f"{noun.model.name} on {machine}"


def _facts(inputs: ReportInputs) -> list[tuple[str, str]]:
    noun = inputs.estimate or inputs.measurement
    assert noun is not None
    facts = [
        ("Model", model_words(noun.model, inputs.estimate.num_parameters if inputs.estimate else None)),
        ("Workload", workload_words(noun.workload)),
        ("Layout", layout_words(noun.layout)),
    ]
    if inputs.measurement:
        facts.append(("Device", inputs.measurement.device))
    if inputs.metrics:
        facts.append(("Trained", plural(max(int(row.get("step", 0)) for row in inputs.metrics), "step")))
    return facts


def _answer(inputs: ReportInputs) -> str:
    if inputs.estimate:
        return (
            f"The plan says {format_value(inputs.estimate.step_time_s, 's')} per step; nothing has been measured yet."
        )
    assert inputs.measurement is not None
    return (
        f"The step took {format_value(inputs.measurement.step_time_s, 's')}; there is no prediction to compare it with."
    )


def _card(term: Term) -> Card:
    largest = max(term.predicted or 0.0, term.measured or 0.0) or 1.0
    return Card(
        label=CARD_LABELS[term.name],
        predicted=format_value(term.predicted, term.unit),
        measured=format_value(term.measured, term.unit),
        verdict=_verdict(term),
        quality=_quality(term.relative_error),
        predicted_bar=round(100 * (term.predicted or 0.0) / largest, 1),
        measured_bar=round(100 * (term.measured or 0.0) / largest, 1),
    )


def _verdict(term: Term) -> str:
    if term.predicted is None and term.measured is None:
        return "unknown"
    if term.predicted is None:
        return "not predicted"
    if term.measured is None:
        return "not measured"
    return f"prediction {error_words(term)}" if term.relative_error is not None else "not comparable"


def _quality(error: float | None) -> str:
    if error is None:
        return "unknown"
    return "good" if abs(error) <= GOOD_ERROR else "fair" if abs(error) <= FAIR_ERROR else "poor"


def _notices(inputs: ReportInputs) -> list[Notice]:
    notices = []
    if inputs.estimate is None:
        notices.append(Notice(text="There is no prediction.", command=plan_command(inputs.run, inputs.is_pipeline)))
    if inputs.measurement is None:
        notices.append(Notice(text="Nothing was measured.", command=measure_command(inputs.run)))
    if not inputs.metrics:
        text = "There is no training history, so loss and step time over the run are not shown."
        notices.append(Notice(text=text, command=train_command(inputs.run, inputs.is_pipeline)))
    return notices


def _commands(inputs: ReportInputs) -> list[tuple[str, str]]:
    return [
        (start_command(inputs.environment), "started this run"),
        (measure_command(inputs.run, again=True), "measures it again, with its own settings"),
        (f"gnomon compare {shlex.quote(inputs.run)}", "prints prediction against measurement in the terminal"),
        (f"gnomon report {shlex.quote(inputs.run)}", "writes this page again"),
    ]


def loss_words(inputs: ReportInputs) -> str:
    """Return how the loss moved, as one sentence; empty without a training history."""
    losses = [(row["step"], row["loss"]) for row in inputs.metrics if row.get("loss") is not None]
    if len(losses) < 2:
        return ""
    (first_step, first), (last_step, last) = losses[0], losses[-1]
    way = "fell" if last < first else "rose"
    return (
        f"Training loss {way} from {first:.3f} at step {first_step} to {last:.3f} at step {last_step} "
        f"({format_percent(abs(last - first) / abs(first)) if first else 'unknown'})."
    )
