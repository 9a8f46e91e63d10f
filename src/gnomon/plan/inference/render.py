"""Inference estimates and hardware choices as tables for a terminal."""

from __future__ import annotations

from rich.console import Group
from rich.table import Table

from gnomon.plan.inference.estimate import (
    INFERENCE_MEMORY_TERMS,
    INFERENCE_TIME_TERMS,
    InferenceEstimate,
    InferenceTime,
)
from gnomon.plan.inference.hardware import HardwareChoice, HardwareSearch
from gnomon.spec import Layout
from gnomon.units import format_bytes, format_count, format_percent, format_seconds

UNKNOWN = "unknown"


def render_inference(estimate: InferenceEstimate) -> Group:
    """Return the estimate as tables."""
    parts = [_headline(estimate), _times(estimate), _memory(estimate)]
    return Group(*parts, _curve(estimate)) if estimate.curve else Group(*parts)


def render_hardware(search: HardwareSearch) -> Group:
    """Return the choices as a table, and how many clusters were not among them."""
    table = _table(
        "Least hardware that meets the target",
        "accelerators",
        "layout",
        "batch",
        "TTFT",
        "TPOT",
        "tokens/s",
        "price/h",
        "price/M tokens",
        "clusters",
    )
    same: dict[tuple[str, ...], list[str]] = {}
    for choice in search.choices:
        same.setdefault(_choice_cells(choice), []).append(choice.cluster)
    for (accelerators, *cells), clusters in same.items():
        table.add_row(accelerators, *cells, ", ".join(clusters))
    reasons: dict[str, list[str]] = {}
    for name, reason in search.rejected.items():
        reasons.setdefault(reason.split(". ")[0].rstrip("."), []).append(name)
    return Group(table, *(f"not {', '.join(names)}: {reason}" for reason, names in reasons.items()))


def _choice_cells(choice: HardwareChoice) -> tuple[str, ...]:
    hourly, tokens = choice.price_per_hour, choice.price_per_million_tokens
    return (
        f"{choice.num_accelerators} x {choice.accelerator}",
        _degrees(choice.layout),
        str(choice.batch),
        format_seconds(choice.ttft_s),
        format_seconds(choice.tpot_s),
        format_count(choice.tokens_per_s),
        UNKNOWN if hourly is None else f"{hourly:.2f}",
        UNKNOWN if tokens is None else f"{tokens:.3g}",
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
    verdict = {None: UNKNOWN, True: "[green]yes", False: "[red]no"}[estimate.fits]
    table.add_row("fits", verdict, sources["memory"])
    table.add_row("largest batch", UNKNOWN if estimate.max_batch is None else str(estimate.max_batch), "of a replica")
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
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table
