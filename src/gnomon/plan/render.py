"""An estimate as rich tables in which every number says where it comes from."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from gnomon.plan.estimate import Estimate, OperatorEstimate
from gnomon.spec import MEMORY_TERMS, OPTIONAL_TERMS, TIME_TERMS, Layout
from gnomon.units import (
    format_bytes,
    format_count,
    format_flops,
    format_percent,
    format_seconds,
)

_TERM_SOURCES = {
    "matmul_s": "FLOPs / achieved rate of each shape",
    "attention_s": "FLOPs / achieved rate by sequence and head",
    "elementwise_s": "bytes / achieved bandwidth by size",
    "embedding_head_s": "both of the above",
    "recompute_s": "the forward operators that run again",
    "optimizer_s": "bytes of weights, gradients and moments / achieved bandwidth",
    "data_s": "bytes / loader rate, where that was measured",
    "idle_s": "launches x dispatch time that nothing hides",
}
_MEMORY_SOURCES = {
    "weights_bytes": "4 bytes per parameter",
    "gradients_bytes": "4 bytes per parameter",
    "optimizer_bytes": "two moments, 8 bytes per parameter",
    "activations_bytes": "what autograd keeps, less the gradients' room",
    "communication_bytes": "gradients are views of the buckets",
    "framework_bytes": "process and allocator reserve, where measured",
}


_STACK_MEMORY_SOURCES = {
    "weights_bytes": "bytes per parameter of the stack, over what shards them",
    "gradients_bytes": "bytes per parameter of the stack, over what shards them",
    "optimizer_bytes": "masters and moments, over what shards them",
    "communication_bytes": "weights that are gathered at one time",
    "framework_bytes": "context, libraries and allocator reserve of the stack",
}


def render_estimate(estimate: Estimate, operators: int = 0) -> RenderableType:
    """Return the headline, the time and memory terms and, if asked, the `operators` slowest operators."""
    parts: list[RenderableType] = [headline_table(estimate), time_table(estimate), memory_table(estimate)]
    if len(estimate.stages) > 1:
        parts.append(stage_table(estimate))
    if estimate.alternatives:
        parts.append(alternative_table(estimate))
    elif estimate.fits is False:
        parts.append("No layout near this one fits; gnomon plan search looks at all of them.")
    if operators:
        parts.append(operator_table(estimate, operators))
    return Group(*parts)


def headline_table(estimate: Estimate) -> Table:
    """Return what is asked and the figures that answer it."""
    layout, workload = estimate.layout, estimate.workload
    table = _table(_title(estimate), "quantity", "value")
    sources = estimate.sources
    accumulation = workload.accumulation(layout.dp)
    read = f", {workload.encoder_seq_len} read" if workload.encoder_seq_len else ""
    batch = f"{workload.global_batch} x {workload.seq_len} tokens{read}"
    table.add_row("layout", layout_words(layout), "configuration")
    table.add_row("batch", batch, f"dp {layout.dp} x accumulation {accumulation} x micro-batch {workload.micro_batch}")
    table.add_row("precision", workload.precision, f"configuration; software: {workload.stack}")
    table.add_row("parameters", format_count(estimate.num_parameters), sources["num_parameters"])
    table.add_row("model FLOPs per step", format_flops(estimate.model_flops), sources["model_flops"])
    table.add_row("[bold]step time", f"[bold]{format_seconds(estimate.step_time_s)}", sources["step_time_s"])
    table.add_row("tokens/s", format_count(estimate.tokens_per_s), sources["tokens_per_s"])
    table.add_row("MFU", format_percent(estimate.mfu), sources["mfu"])
    table.add_row("peak memory per rank", format_bytes(estimate.memory.total_bytes), sources["memory"])
    table.add_row("fits", _verdict(estimate), "peak memory against the device's")
    return table


def _title(estimate: Estimate) -> str:
    cluster, accelerator = estimate.cluster.name, estimate.cluster.accelerator.name
    where = "" if cluster == accelerator else f" ({cluster})"
    return f"{estimate.model.name} on {estimate.layout.num_ranks} x {accelerator}{where}"


def time_table(estimate: Estimate) -> Table:
    """Return the terms of the step time."""
    table = _table("Step time", "term", "time", "share")
    for term, seconds in estimate.time.as_dict().items():
        if term in OPTIONAL_TERMS and not seconds:
            continue
        source = _TERM_SOURCES.get(term) or estimate.sources.get(term, "")
        table.add_row(TIME_TERMS[term], format_seconds(seconds), format_percent(seconds / estimate.step_time_s), source)
    return table


def memory_table(estimate: Estimate) -> Table:
    """Return the terms of the peak memory."""
    table = _table("Peak memory per rank", "term", "bytes", "share")
    total = estimate.memory.total_bytes
    own = estimate.workload.stack == "gnomon" and not estimate.layout.zero_stage
    sources = _MEMORY_SOURCES if own else {**_MEMORY_SOURCES, **_STACK_MEMORY_SOURCES}
    for term, size in estimate.memory.as_dict().items():
        table.add_row(MEMORY_TERMS[term], format_bytes(size), format_percent(size / total), sources[term])
    return table


def stage_table(estimate: Estimate) -> Table:
    """Return the peak memory of each kind of pipeline stage."""
    columns = ("stage", "layers", "parameters", "in flight", "peak memory", "fits")
    table = _table("One rank of each pipeline stage", *columns, sources=False)
    for stage in estimate.stages:
        fits = "unknown" if stage.fits is None else "yes" if stage.fits else "no"
        table.add_row(
            stage.name,
            f"{stage.num_layers:g}",
            format_count(stage.num_parameters),
            f"{stage.micro_batches_in_flight:g}",
            format_bytes(stage.memory.total_bytes),
            fits,
        )
    return table


def alternative_table(estimate: Estimate) -> Table:
    """Return the nearest layouts that fit."""
    table = _table(
        "What would fit, with the same batch", "change", "accelerators", "step time", "peak memory", sources=False
    )
    for other in estimate.alternatives:
        changes = ", ".join(f"{name} {value}" for name, value in other.changes.items())
        memory = format_bytes(other.peak_memory_bytes)
        table.add_row(changes, str(other.layout.num_ranks), format_seconds(other.step_time_s), memory)
    return table


def operator_table(estimate: Estimate, count: int) -> Table:
    """Return the `count` slowest operators."""
    table = _table("Slowest operators", "operator", "phase", "calls", "time", "achieved", "bound by")
    slowest = sorted(estimate.operators, key=lambda o: o.time_s + o.launch_s, reverse=True)[:count]
    for row in slowest:
        table.add_row(
            row.name,
            row.phase,
            f"{row.calls:g}",
            format_seconds(row.time_s + row.launch_s),
            _achieved(row),
            row.bound,
            row.source,
        )
    return table


def _achieved(row: OperatorEstimate) -> str:
    if row.time_s <= 0:
        return ""
    if row.flops > 0:
        return format_flops(row.flops / row.time_s, per_second=True)
    return f"{format_bytes(row.traffic_bytes / row.time_s)}/s"


def _verdict(estimate: Estimate) -> str:
    capacity = estimate.cluster.accelerator.memory_bytes
    if estimate.fits is None or capacity is None:
        return "unknown"
    room = capacity - estimate.memory.total_bytes
    if estimate.fits:
        return f"[green]yes, {format_bytes(room)} to spare"
    return f"[red]no, {format_bytes(-room)} too much"


def layout_words(layout: Layout) -> str:
    """Return a layout as the settings that differ from one rank."""
    default = Layout()
    shown = {n: getattr(layout, n) for n in type(layout).model_fields if getattr(layout, n) != getattr(default, n)}
    return ", ".join(f"{name} {value}" for name, value in shown.items()) or "one rank"


def _table(title: str, *columns: str, sources: bool = True) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    if sources:
        table.add_column("where it comes from", style="dim", overflow="fold")
    return table
