"""A plan as one HTML page that needs no network."""

from __future__ import annotations

from dataclasses import dataclass

from gnomon.errors import GnomonError
from gnomon.plan.estimate import Estimate
from gnomon.plan.planner import plan
from gnomon.plan.search import SearchResult
from gnomon.plan.simulate import Timeline, simulate
from gnomon.report import figures
from gnomon.report.figures import plan as plan_figures
from gnomon.report.panels import Panel, make_panel
from gnomon.report.tables import Table
from gnomon.spec import MEMORY_TERMS, TIME_TERMS, Workload
from gnomon.units import format_bytes, format_count, format_flops, format_percent, format_seconds

MOST_MICRO_BATCHES = 24
MOST_SPANS = 4000
SLOWEST = 15


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page: a reading of it in one sentence, figures, and the numbers as tables."""

    key: str
    title: str
    reading: str
    panels: tuple[Panel, ...]
    tables: tuple[Table, ...] = ()


def render_plan_page(estimate: Estimate, found: SearchResult | None = None) -> str:
    """Return the page of an estimate, with the Pareto front of a search if there is one."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    sections = plan_sections(estimate, found)
    environment = Environment(
        loader=PackageLoader("gnomon.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("plan.html.j2").render(
        title=_title(estimate),
        facts=_facts(estimate),
        answer=_answer(estimate),
        sections=sections,
        assumptions=estimate.assumptions,
        figures={panel.key: panel.figure for section in sections for panel in section.panels},
        plotly_js=Markup(get_plotlyjs()),
    )


def plan_sections(estimate: Estimate, found: SearchResult | None = None) -> list[Section]:
    """Return the sections that this estimate can fill."""
    candidates = (
        _time(estimate),
        _memory(estimate),
        _pipeline(estimate),
        _operators(estimate),
        _scaling(estimate),
        _search(estimate, found),
        _sources(estimate),
    )
    return [section for section in candidates if section is not None]


def _title(estimate: Estimate) -> str:
    return f"{estimate.model.name} on {estimate.layout.num_ranks} x {estimate.cluster.accelerator.name}"


def _facts(estimate: Estimate) -> list[tuple[str, str]]:
    from gnomon.plan.search.render import layout_words

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
    fullest = max(estimate.stages, key=lambda stage: stage.memory.total_bytes)
    caption = "Peak of one rank on each kind of pipeline stage."
    return Section(
        key="memory",
        title="Where the memory goes",
        reading=f"The fullest is '{fullest.name}' with {format_bytes(fullest.memory.total_bytes)}.",
        panels=(make_panel("memory", "Memory by stage", caption, plan_figures.stage_memory(estimate)),),
        tables=(Table(title="Memory by stage", columns=columns, rows=rows, numeric=tuple(range(1, len(columns)))),),
    )


def _pipeline(estimate: Estimate) -> Section | None:
    if estimate.pipeline is None:
        return None
    timeline, shown = _timeline(estimate)
    if timeline is None:
        return None
    count = estimate.pipeline.num_micro_batches
    part = "all" if shown == count else f"the first schedule of {shown} of {count}"
    return Section(
        key="pipeline",
        title="The pipeline",
        reading=f"{estimate.pipeline.schedule} leaves {format_percent(estimate.pipeline.bubble_fraction)} of it idle.",
        panels=(
            make_panel(
                "pipeline",
                "What each pipeline rank does",
                f"Simulated pass by pass, {part} micro-batches, with equal stages.",
                plan_figures.pipeline_timeline(timeline),
            ),
        ),
    )


def _timeline(estimate: Estimate) -> tuple[Timeline | None, int]:
    """Return (the simulated schedule of as many micro-batches as a figure can show, how many)."""
    layout, time = estimate.layout, estimate.time
    assert estimate.pipeline is not None
    count = estimate.pipeline.num_micro_batches
    spans = 2 * layout.pp * layout.vpp
    most = max(layout.pp, min(count, MOST_MICRO_BATCHES, max(1, MOST_SPANS // spans)))
    shown = min(count, most // layout.pp * layout.pp if count >= layout.pp else count)
    work = (time.total_s - time.bubble_s - time.optimizer_s) / count
    chunks = layout.vpp if layout.schedule == "1f1b" else 2 if layout.schedule in ("zb-v", "v-half", "v-min") else 1
    # a third each for the forward and for the two gradients
    third = [[work / 3 / chunks] * chunks for _ in range(layout.pp)]
    try:
        return simulate(layout.schedule, layout.pp, layout.vpp, shown, third, third, third, 0.0), shown
    except GnomonError:
        return None, 0


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


def _scaling(estimate: Estimate) -> Section | None:
    """Return weak scaling: the same layout with fewer replicas and as much less of the batch."""
    points = [p for p in (_with_replicas(estimate, dp) for dp in _replicas(estimate.layout.dp)) if p is not None]
    if len(points) < 2:
        return None
    rows = tuple(
        (
            f"{p.layout.num_ranks}",
            f"{p.workload.global_batch}",
            format_seconds(p.step_time_s),
            format_count(p.tokens_per_s),
            "" if p.mfu is None else format_percent(p.mfu),
        )
        for p in points
    )
    first, last = points[0], points[-1]
    kept = last.tokens_per_s_per_accelerator / first.tokens_per_s_per_accelerator
    return Section(
        key="scaling",
        title="Scaling",
        reading=f"An accelerator keeps {format_percent(kept)} of its rate from {rows[0][0]} to {rows[-1][0]} of them.",
        panels=(
            make_panel(
                "scaling",
                "Tokens per second by accelerators",
                "Weak scaling: replicas are added, and the batch grows with them.",
                plan_figures.scaling(points),
            ),
        ),
        tables=(
            Table(
                title="Weak scaling",
                columns=("accelerators", "batch", "step time", "tokens/s", "MFU"),
                rows=rows,
                numeric=(0, 1, 2, 3, 4),
            ),
        ),
    )


def _replicas(dp: int) -> list[int]:
    return sorted({dp, *(1 << i for i in range(dp.bit_length()) if dp % (1 << i) == 0)})


def _with_replicas(estimate: Estimate, dp: int) -> Estimate | None:
    layout = estimate.layout.to_mapping()
    layout.update(dp=dp, shard_ranks=None)
    workload = estimate.workload.to_mapping()
    workload["global_batch"] = estimate.workload.global_batch * dp // estimate.layout.dp
    try:
        fewer = type(estimate.layout).from_mapping(layout, where="layout")
        return plan(estimate.model, estimate.cluster, fewer, Workload.from_mapping(workload, where="workload"))
    except GnomonError:
        return None


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
                plan_figures.pareto(found.pareto, estimate),
            ),
        ),
    )


def _sources(estimate: Estimate) -> Section:
    rows = tuple(estimate.sources.items())
    return Section(
        key="sources",
        title="Where each number comes from",
        reading="Every constant, with its origin, is in docs/model.md.",
        panels=(),
        tables=(Table(title="Sources", columns=("figure", "source"), rows=rows),),
    )
