"""A plan as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.errors import GnomonError
from gnomon.plan.estimate import Estimate, PipelineEstimate
from gnomon.plan.render import layout_words
from gnomon.plan.schedule import supported
from gnomon.plan.search import Candidate, SearchResult, search
from gnomon.plan.simulate import Timeline
from gnomon.plan.timeline import pipeline_timeline
from gnomon.report import figures
from gnomon.report.figures import plan as plan_figures
from gnomon.report.panels import make_panel
from gnomon.report.scaling import Progress, best_by_number, scaling_section
from gnomon.report.section import Page, Section, render_page
from gnomon.report.tables import Table
from gnomon.spec import MEMORY_TERMS, TIME_TERMS, Layout
from gnomon.spec.layout import SCHEDULES
from gnomon.units import format_bytes, format_count, format_flops, format_percent, format_seconds

MOST_MICRO_BATCHES = 24
MOST_PASSES_IN_A_ROW = 240
SLOWEST = 15
SHOWN_SHARE = 0.0005  # smaller shares print as 0.0%


SOURCE_NAMES = {
    "num_parameters": "parameters",
    "model_flops": "model FLOPs",
    "step_time_s": "step time",
    "tokens_per_s": "tokens per second",
    "mfu": "MFU",
    "communication_s": "communication",
    "bubble_s": "pipeline bubble",
}


def estimate_page(estimate: Estimate, progress: Progress | None = None) -> str:
    """Return the page of an estimate, with the other layouts of the same ranks and the best on fewer.

    progress: called with (numbers of accelerators searched, all of them)
    """
    ranks = estimate.layout.num_ranks
    try:
        found = search(estimate.model, estimate.cluster, estimate.workload, accelerators=[ranks], top=1)
    except GnomonError:
        found = None  # nothing of the default space can run these micro-batches, say
    return render_plan_page(estimate, found, best_by_number(estimate, progress))


def render_plan_page(estimate: Estimate, found: SearchResult | None = None, by_number: Sequence[Candidate] = ()) -> str:
    """Return the page of an estimate, with the Pareto front of a search and the best by number of accelerators."""
    return render_page(
        Page(
            title=f"{estimate.model.name} on {estimate.layout.num_ranks} x {estimate.cluster.accelerator.name}",
            facts=estimate_facts(estimate),
            answer=_answer(estimate),
            sections=plan_sections(estimate, found, by_number),
            assumptions=estimate.assumptions,
        )
    )


def plan_sections(
    estimate: Estimate, found: SearchResult | None = None, by_number: Sequence[Candidate] = ()
) -> list[Section]:
    """Return the sections that this estimate can fill."""
    candidates = (
        _time(estimate),
        _memory(estimate),
        _fitting(estimate),
        _pipeline(estimate),
        _operators(estimate),
        scaling_section(estimate, by_number),
        _search(estimate, found),
        _sources(estimate),
    )
    return [section for section in candidates if section is not None]


def estimate_facts(estimate: Estimate) -> list[tuple[str, str]]:
    """Return what was asked and the headline figures, as they stand under the title."""
    workload = estimate.workload
    return [
        ("Layout", layout_words(estimate.layout)),
        ("Batch", f"{workload.global_batch} x {workload.seq_len} tokens, micro-batch {workload.micro_batch}"),
        ("Precision", workload.precision),
        ("Software", workload.stack),
        ("Step time", format_seconds(estimate.step_time_s)),
        ("Tokens per second", format_count(estimate.tokens_per_s)),
        ("Tokens per day", format_count(estimate.tokens_per_day)),
        ("MFU", "unknown" if estimate.mfu is None else format_percent(estimate.mfu)),
        ("Peak memory per rank", format_bytes(estimate.memory.total_bytes)),
    ]


def _answer(estimate: Estimate) -> str:
    slowest = max(estimate.time.as_dict().items(), key=lambda item: item[1])
    fits = {None: "whether it fits is unknown", True: "it fits", False: "it does not fit"}[estimate.fits]
    share = format_percent(slowest[1] / estimate.step_time_s)
    step, needs = format_seconds(estimate.step_time_s), format_bytes(estimate.memory.total_bytes)
    return f"One step takes {step}, {share} of it {TIME_TERMS[slowest[0]]}; a rank needs {needs}, and {fits}."


def _time(estimate: Estimate) -> Section:
    ideal = None if estimate.mfu is None else estimate.step_time_s * estimate.mfu
    caption = "Each bar begins where the one above ends. The dotted line is the time of the model's FLOPs at the peak."
    rows = [
        (TIME_TERMS[t], format_seconds(s), format_percent(s / estimate.step_time_s))
        for t, s in estimate.time.as_dict().items()
        if s
    ]
    return Section(
        key="time",
        title="Where the time goes",
        reading=_reading_time(estimate, ideal),
        panels=(make_panel("time", "From nothing to the step", caption, plan_figures.step_waterfall(estimate, ideal)),),
        tables=(Table(title="Time of one step", columns=("term", "time", "share"), rows=tuple(rows), numeric=(1, 2)),),
    )


def _reading_time(estimate: Estimate, ideal: float | None) -> str:
    if not ideal:
        return "The peak of this device is unknown, so there is no ideal time to compare with."
    times = estimate.step_time_s / ideal
    return f"At its peak the hardware would need {format_seconds(ideal)}; the step takes {times:.1f} times that."


def _memory(estimate: Estimate) -> Section:
    columns = ("stage", "layers", "micro-batches in flight", *MEMORY_TERMS.values(), "peak")
    rows = tuple(
        (
            stage.name,
            f"{stage.num_layers:g}",
            f"{stage.micro_batches_in_flight:g}",
            *(format_bytes(size) for size in stage.memory.as_dict().values()),
            format_bytes(stage.memory.total_bytes),
        )
        for stage in estimate.stages
    )
    caption = "Peak of one rank on each kind of pipeline stage."
    return Section(
        key="memory",
        title="Where the memory goes",
        reading=_reading_memory(estimate),
        panels=(make_panel("memory", "Memory by stage", caption, plan_figures.stage_memory(estimate)),),
        tables=(Table(title="Memory by stage", columns=columns, rows=rows, numeric=tuple(range(1, len(columns)))),),
    )


def _reading_memory(estimate: Estimate) -> str:
    fullest = max(estimate.stages, key=lambda stage: stage.memory.total_bytes)
    capacity = estimate.cluster.accelerator.memory_bytes
    device = "" if capacity is None else f"; the device has {format_bytes(capacity)}"
    who = "A rank" if len(estimate.stages) == 1 else f"A rank of the {fullest.name} pipeline stage, the fullest,"
    return f"{who} needs {format_bytes(fullest.memory.total_bytes)} at its peak{device}."


def _fitting(estimate: Estimate) -> Section | None:
    if not estimate.alternatives:
        return None
    rows = tuple(
        (
            ", ".join(f"{name} {value}" for name, value in other.changes.items()),
            str(other.layout.num_ranks),
            format_seconds(other.step_time_s),
            format_bytes(other.peak_memory_bytes),
        )
        for other in estimate.alternatives
    )
    columns = ("change", "accelerators", "step time", "peak memory")
    return Section(
        key="fitting",
        title="What would fit",
        reading="This layout does not fit the memory; these are the nearest that do, with the same batch.",
        tables=(Table(title="Nearest layouts that fit", columns=columns, rows=rows, numeric=(1, 2, 3)),),
    )


def _pipeline(estimate: Estimate) -> Section | None:
    pipeline = estimate.pipeline
    if pipeline is None or not pipeline.passes:  # of an estimate that an older gnomon wrote
        return None
    shown = _micro_batches_shown(estimate.layout, pipeline.num_micro_batches)
    try:
        timeline = pipeline_timeline(pipeline, estimate.layout, shown)
    except GnomonError:
        return None
    return Section(
        key="pipeline",
        title="The pipeline",
        reading=_reading_pipeline(pipeline),
        panels=(
            make_panel(
                "pipeline",
                "What each pipeline rank does",
                _timeline_caption(pipeline, timeline, shown),
                plan_figures.pipeline_timeline(timeline),
            ),
        ),
    )


def _reading_pipeline(pipeline: PipelineEstimate) -> str:
    held_up = pipeline.send_s / pipeline.total_s
    sends = f", and transfers hold it up for {format_percent(held_up)}" if held_up >= SHOWN_SHARE else ""
    return (
        f"The pipeline takes {format_seconds(pipeline.total_s)}. The schedule {pipeline.schedule} with "
        f"{pipeline.num_micro_batches} micro-batches leaves the busiest rank idle for "
        f"{format_percent(pipeline.bubble_fraction)} of that{sends}."
    )


def _timeline_caption(pipeline: PipelineEstimate, timeline: Timeline, shown: int) -> str:
    count = pipeline.num_micro_batches
    part = f"all {count} micro-batches are shown"
    if shown < count:
        part = f"{shown} of {count} micro-batches are shown, of which the ramps are a larger share"
    caption = f"Simulated pass by pass with the times of the stages; {part}."
    own = format_seconds(timeline.unsynchronised_s)
    if pipeline.ranks_wait or own == format_seconds(timeline.total_s):
        return caption
    return f"{caption} A rank that is done goes on with the next step: from step to step these take {own}."


def _micro_batches_shown(layout: Layout, count: int) -> int:
    """Return all, or where these are too many to see the most that the schedule can run."""
    most = max(2 * layout.pp, min(MOST_MICRO_BATCHES, MOST_PASSES_IN_A_ROW // (2 * layout.vpp)))
    schedule = SCHEDULES.index(layout.schedule)
    fewer = range(min(count, most), 0, -1)
    return next((m for m in fewer if supported(schedule, layout.pp, layout.vpp, m).all()), count)


def _operators(estimate: Estimate) -> Section:
    computed = [o for o in estimate.operators if o.phase != "communication"]
    slowest = sorted(computed, key=lambda o: -(o.time_s + o.launch_s))[:SLOWEST]
    rows = tuple(
        (
            o.name,
            o.phase,
            f"{o.calls:,.0f}",
            format_seconds(o.time_s),
            format_flops(o.flops / o.time_s, per_second=True) if o.flops and o.time_s else "",
            o.bound,
            o.source,
        )
        for o in slowest
    )
    columns = ("operator", "phase", "calls", "time", "achieved", "bound by", "where it comes from")
    caption = "Each point is one operator; larger points take longer. The grey roof is the device's peak."
    return Section(
        key="operators",
        title="Operators",
        reading=f"'{slowest[0].name}' takes longest: {format_seconds(slowest[0].time_s)} of device time per step.",
        panels=(make_panel("roofline", "Operators under the roofline", caption, figures.roofline(estimate)),),
        tables=(Table(title="Slowest operators", columns=columns, rows=rows, numeric=(2, 3, 4)),),
    )


def _search(estimate: Estimate, found: SearchResult | None) -> Section | None:
    if found is None or not found.pareto:
        return None
    fastest, looked = format_seconds(found.pareto[0].step_time_s), format_count(found.num_evaluated)
    return Section(
        key="search",
        title="Other layouts",
        reading=f"Of {looked} layouts the fastest that fits takes {fastest}.",
        panels=(
            make_panel(
                "pareto",
                "No layout is both faster and smaller",
                "Every point is the fastest layout with its memory; the diamond is this plan.",
                plan_figures.pareto(found.pareto, estimate, "this plan"),
            ),
        ),
    )


def _sources(estimate: Estimate) -> Section:
    rows = tuple((SOURCE_NAMES.get(name, name), source) for name, source in estimate.sources.items())
    return Section(
        key="sources",
        title="Where each number comes from",
        reading="Every constant, with its origin, is in docs/model.md.",
        tables=(Table(title="Sources", columns=("figure", "source"), rows=rows),),
    )
