"""Inference estimates and hardware choices as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from gnomon.plan.inference.estimate import (
    INFERENCE_MEMORY_TERMS,
    INFERENCE_TIME_TERMS,
    InferenceEstimate,
    InferenceTime,
)
from gnomon.plan.inference.hardware import HardwareChoice, HardwareSearch
from gnomon.plan.inference.planner import usable_bytes
from gnomon.spec import Layout
from gnomon.units import format_bytes, format_count, format_percent, format_seconds

UNKNOWN = "unknown"
LEFT = ("where it comes from", "layout", "clusters")


Fitting = Sequence[tuple[dict[str, Any], InferenceEstimate]]


def render_inference(estimate: InferenceEstimate, fitting: Fitting = ()) -> Group:
    """Return the estimate as tables; `fitting` are ({what differs}, estimate) that fit where this one does not."""
    parts = [_headline(estimate), _times(estimate), _memory(estimate)]
    if estimate.curve:
        parts.append(_curve(estimate))
    if fitting:
        parts.append(_fitting(fitting))
    return Group(*parts)


def render_hardware(search: HardwareSearch) -> Group:
    """Return the choices as a table, and why the other clusters are not among them."""
    priced = any(choice.price_per_hour is not None for choice in search.choices)
    prices = ("price/h", "price/M tokens") if priced else ()
    columns = ("accelerators", "layout", "batch", "TTFT", "TPOT", "tokens/s", *prices, "clusters")
    table = _table("Least hardware that meets the target", *columns)
    same: dict[tuple[str, ...], list[str]] = {}
    for choice in search.choices:
        same.setdefault(_choice_cells(choice, priced), []).append(choice.cluster)
    for (accelerators, *cells), clusters in same.items():
        table.add_row(accelerators, *cells, ", ".join(clusters))
    reasons: dict[str, list[str]] = {}
    for name, reason in search.rejected.items():
        reasons.setdefault(reason.split(". ")[0].rstrip("."), []).append(name)
    first: RenderableType = table if search.choices else "Nothing in the catalog meets the target."
    return Group(first, *(f"not {', '.join(names)}: {reason}" for reason, names in reasons.items()))


def _choice_cells(choice: HardwareChoice, priced: bool) -> tuple[str, ...]:
    hourly, tokens = choice.price_per_hour, choice.price_per_million_tokens
    prices = (UNKNOWN if hourly is None else f"{hourly:.2f}", UNKNOWN if tokens is None else f"{tokens:.3g}")
    return (
        f"{choice.num_accelerators} x {choice.accelerator}",
        _degrees(choice.layout),
        str(choice.batch),
        format_seconds(choice.ttft_s),
        format_seconds(choice.tpot_s),
        format_count(choice.tokens_per_s),
        *(prices if priced else ()),
    )


def _headline(estimate: InferenceEstimate) -> Table:
    workload, layout = estimate.workload, estimate.layout
    title = f"{estimate.model.name} on {layout.num_ranks} x {estimate.cluster.accelerator.name}"
    table = _table(title, "quantity", "value", "where it comes from")
    sources = estimate.sources
    lengths = f"{workload.prompt_len} + {workload.output_len} tokens"
    table.add_row("requests", lengths, f"batch {workload.batch}, {_degrees(layout)}")
    stored = f"{workload.weight_precision}; computed in {workload.compute_precision}"
    table.add_row("weights", format_bytes(estimate.weights_bytes), stored)
    table.add_row("cache per token", format_bytes(estimate.kv_bytes_per_token), workload.kv_precision)
    table.add_row("cache per sequence", format_bytes(estimate.kv_bytes_per_sequence), lengths)
    if estimate.distinct_experts is not None:
        table.add_row("experts per decode step", f"{estimate.distinct_experts:.1f}", "E (1 - (1 - k/E)^b)")
    table.add_row("[bold]time to first token", f"[bold]{format_seconds(estimate.ttft_s)}", sources["ttft_s"])
    table.add_row("[bold]time per output token", f"[bold]{format_seconds(estimate.tpot_s)}", sources["tpot_s"])
    table.add_row("request", format_seconds(estimate.request_s), "first to last token, uninterrupted")
    table.add_row("output tokens/s", format_count(estimate.tokens_per_s), "prefill and decode in turn")
    table.add_row("MFU of prefill", format_percent(estimate.prefill_mfu), "forward FLOPs over peak")
    table.add_row("bandwidth used in decode", format_percent(estimate.decode_mbu), "weights and cache over peak")
    table.add_row("fits", _verdict(estimate), sources["memory"])
    table.add_row("largest batch", UNKNOWN if estimate.max_batch is None else str(estimate.max_batch), "of a replica")
    return table


def _verdict(estimate: InferenceEstimate) -> str:
    capacity = usable_bytes(estimate.cluster, estimate.workload)
    if estimate.fits is None or capacity is None:
        return UNKNOWN
    room = capacity - estimate.memory.total_bytes
    if estimate.fits:
        return f"[green]yes, {format_bytes(max(room, 0.0))} to spare"
    return f"[red]no, {format_bytes(-room)} too much" if room < 0 else "[red]no"


def _fitting(fitting: Fitting) -> Table:
    table = _table("What would fit", "change", "accelerators", "TTFT", "TPOT", "tokens/s", "memory per rank")
    for changes, other in fitting:
        table.add_row(
            ", ".join(f"{name} {value}" for name, value in changes.items()),
            str(other.layout.num_ranks),
            format_seconds(other.ttft_s),
            format_seconds(other.tpot_s),
            format_count(other.tokens_per_s),
            format_bytes(other.memory.total_bytes),
        )
    return table


def _times(estimate: InferenceEstimate) -> Table:
    table = _table("Time", "term", "prefill", "share", "decode step", "share")
    prefill, decode = estimate.prefill, estimate.decode
    for term, words in INFERENCE_TIME_TERMS.items():
        table.add_row(words, *_time_and_share(prefill, term), *_time_and_share(decode, term))
    return table


def _time_and_share(time: InferenceTime, term: str) -> tuple[str, str]:
    seconds = time.as_dict()[term]
    return format_seconds(seconds), format_percent(seconds / time.total_s)


def _memory(estimate: InferenceEstimate) -> Table:
    table = _table("Memory per rank", "term", "bytes")
    for term, size in estimate.memory.as_dict().items():
        table.add_row(INFERENCE_MEMORY_TERMS[term], format_bytes(size))
    table.add_row("all", format_bytes(estimate.memory.total_bytes))
    return table


def _curve(estimate: InferenceEstimate) -> Table:
    table = _table("Batch against latency", "batch", "TTFT", "TPOT", "tokens/s", "memory per rank")
    for point in estimate.curve:
        table.add_row(
            str(point.batch),
            format_seconds(point.ttft_s),
            format_seconds(point.tpot_s),
            format_count(point.tokens_per_s),
            format_bytes(point.memory_bytes),
        )
    return table


def _degrees(layout: Layout) -> str:
    degrees = {name: getattr(layout, name) for name in ("dp", "tp", "pp", "ep", "expert_tp")}
    return ", ".join(f"{name} {value}" for name, value in degrees.items() if value > 1) or "one accelerator"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        left = index == 0 or column in LEFT
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    return table
