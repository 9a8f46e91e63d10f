"""The report as text, in dlcalc's sections and with its bars. Colours only where the console shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from gnomon.plan.training_3d.result import Component, Gemm, Memory, Training3D, Transfer
from gnomon.spec._noun import names_file
from gnomon.units import format_count

WIDTH = 80
LABEL_WIDTH = 30
COMPONENT_WIDTH = 28
GIB, MIB = 2.0**30, 2.0**20
PERCENT_PER_BLOCK = 4.0
GOOD_MFU, FAIR_MFU = 0.4, 0.25

NOTES = (
    "The estimate is of the software and the achieved rates named above: it has",
    "no data loading and no failures. Look at the parts, beside a profile of the",
    "real run, rather than at the MFU alone.",
)


def render(report: Training3D, console: Console) -> None:
    """Print every section of the report."""
    _Page(console).print(report)


class _Page:
    def __init__(self, console: Console) -> None:
        self._console = console

    def print(self, report: Training3D) -> None:
        self._configuration(report)
        self._memory(report)
        self._gemms(report)
        self._communication(report)
        self._bubble(report)
        self._data_parallel(report)
        self._iteration(report)
        self._final(report)

    def _configuration(self, report: Training3D) -> None:
        self._title("CONFIGURATION")
        self._line(json.dumps(dict(report.config), indent=2))
        machine, data, model = report.hardware, report.data, report.architecture
        self._heading("Hardware Configuration")
        self._row("Node Type:", machine.node_type)
        if machine.cluster != machine.node_type:
            self._row("Cluster:" if names_file(machine.node_type) else "Catalog Cluster:", machine.cluster)
        self._row("Accelerator:", machine.accelerator)
        self._row("Total Devices:", machine.num_accelerators)
        self._row("Total Nodes:", machine.num_nodes)
        self._row(
            "Device Memory:", "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / GIB:g} GiB"
        )
        self._row("Peak FLOPS/device:", f"{machine.peak_flops_per_s / 1e12:g} TFLOPS ({machine.precision}, dense)")
        self._row("Achieved Rates:", machine.rates)
        self._cross_dc(report)
        self._heading("Data Configuration")
        self._row("Global Batch Size:", f"{data.global_batch} samples")
        self._row("Total Tokens/Batch:", f"{format_count(data.tokens_per_step)} tokens")
        self._row("Batch Size per DP Rank:", data.batch_per_replica)
        self._row("Microbatches per Rank:", data.num_micro_batches)
        self._row("Sequence Length:", f"{data.seq_len} tokens")
        self._heading("Model Architecture")
        self._row("Total Parameters:", format_count(model.parameters))
        self._row("Active Parameters:", format_count(model.active_parameters))
        self._row("Hidden Size:", model.hidden_size)
        moe = f" ({model.num_moe_layers} MoE)" if model.num_moe_layers else ""
        self._row("Number of Layers:", f"{model.num_layers}{moe}")
        self._row("Attention Heads:", f"{model.num_heads} (Q) / {model.num_kv_heads} (KV)")
        self._heading("Assumptions")
        for sentence in report.assumptions:
            self._wrapped(sentence)

    def _cross_dc(self, report: Training3D) -> None:
        cross = report.cross_dc
        if cross is None:
            return
        self._heading("Cross-DC Configuration")
        self._row("Number of DCs:", cross.num_datacentres)
        self._row("Interconnect Bandwidth:", f"{cross.bandwidth_bytes_per_s * 8 / 1e9:g} Gbps per DC")
        self._row("  per Device:", f"{cross.bandwidth_per_accelerator_bytes_per_s * 8 / 1e9:.2f} Gbps")
        self._row("Interconnect Latency:", f"{cross.latency_s * 1e3:.2f} ms")
        self._row("Devices per DC:", cross.accelerators_per_datacentre)
        self._row("Replicas per DC:", cross.replicas_per_datacentre)

    def _memory(self, report: Training3D) -> None:
        memory = report.memory
        activations = memory.activations
        self._title("MEMORY")
        self._heading(f"Model States (pipeline stage: {memory.stage})")
        for state in memory.states:
            self._line(f"{state.name:<16}: numel: {state.elements / 1e9:.3f} B, bytes: {state.bytes / GIB:.3f} GiB")
        self._line(f"{'TOTAL':<16}: {memory.states_bytes / GIB:.2f} GiB")
        self._heading("Activations")
        self._row("Activation/Layer/Microbatch:", f"{activations.per_layer_bytes / GIB:.3f} GiB")
        self._row("Max Inflight Microbatches:", _short(activations.micro_batches_in_flight))
        self._row("VPP Memory Multiplier:", f"{activations.interleaving_factor:.2f}x (in the count above)")
        self._row("Layers per PP Stage:", _short(activations.num_layers))
        self._row("Layers' Activations:", f"{activations.layers_bytes / GIB:.3f} GiB")
        self._row("Logits, Loss, Transients:", f"{activations.rest_bytes / GIB:.3f} GiB")
        self._row("Total Activation Memory:", f"{activations.total_bytes / GIB:.3f} GiB")
        self._line()
        self._info("Activation Breakdown per Layer/Microbatch")
        total = activations.per_layer_bytes
        for name, size in activations.tensors.items():
            share = 100.0 * size / total
            self._line(f"    {name.capitalize():<27} │ {size / MIB:>9.1f} MiB │  {share:>5.1f}% {_bar(share)}")
        self._line("  " + "─" * (WIDTH - 8))
        self._line(f"    {'TOTAL':<27} │ {total / MIB:>9.1f} MiB")
        self._verdict(memory)

    def _verdict(self, memory: Memory) -> None:
        self._heading("Summary")
        self._row("Model States:", f"{memory.states_bytes / GIB:.3f} GiB")
        self._row("Activations:", f"{memory.activations.total_bytes / GIB:.3f} GiB")
        if memory.buffers_bytes:
            self._row("Gathered Weights:", f"{memory.buffers_bytes / GIB:.3f} GiB")
        self._row("Framework and Allocator:", f"{memory.framework_bytes / GIB:.3f} GiB")
        if len(memory.stages) > 1:
            parts = (f"{name} {size / GIB:.3f}" for name, size in memory.stages.items())
            self._row("By Pipeline Stage:", ", ".join(parts) + " GiB")
        needed = f"Total Memory Required: {memory.total_bytes / GIB:.3f} GiB per device"
        if memory.fits is None or memory.capacity_bytes is None:
            self._line(f"? {needed} (the device's memory is unknown)", "yellow")
            return
        room = memory.capacity_bytes - memory.total_bytes
        device = f"{memory.capacity_bytes / GIB:g} GiB"
        if memory.fits:
            self._line(f"✓ {needed} (fits: {room / GIB:.3f} of {device} to spare)", "green")
        else:
            where = "" if memory.stage == "whole model" else f" on the {memory.stage} stage"
            self._line(f"✗ {needed}", "bold red")
            self._line(f"✗ OUT OF MEMORY{where}: {-room / GIB:.3f} GiB more than the device's {device}", "bold red")

    def _gemms(self, report: Training3D) -> None:
        self._title("COMPUTE: GEMM OPERATIONS")
        self._info("Note: Numbers calculated assuming 100% FLOPS and bandwidth utilization")
        for gemm in report.gemms:
            self._gemm(gemm)

    def _gemm(self, gemm: Gemm) -> None:
        self._line()
        times = f" x {gemm.groups:g} experts" if gemm.groups > 1 else ""
        self._line(f"  {gemm.name}{times}", "bold")
        self._line(f"    Shape: {gemm.weight_shape} → Partitioned: {gemm.local_shape}, {gemm.rows:g} rows")
        self._line(f"    Compute: {gemm.compute_s * 1e3:.3f} ms")
        self._line(f"             ({gemm.flops / 1e9:.2f}B FLOPs)")
        for index, part in enumerate(("input", "weight", "output")):
            label = "Memory:  " if index == 0 else " " * 9
            size, seconds = getattr(gemm, f"{part}_bytes"), getattr(gemm, f"{part}_s")
            time = "" if seconds is None else f" ({seconds * 1e3:.3f} ms)"
            self._line(f"    {label}{part.capitalize()}: {size / 1e9:.2f} GB{time}")

    def _communication(self, report: Training3D) -> None:
        self._transfers("COMMUNICATION: TENSOR PARALLELISM", report.tensor, "tp is 1")
        if report.context:
            self._transfers("COMMUNICATION: CONTEXT PARALLELISM", report.context, "")
        if report.expert:
            self._transfers("COMMUNICATION: EXPERT PARALLELISM", report.expert, "")
        self._transfers("COMMUNICATION: PIPELINE PARALLELISM", report.pipeline, "pp is 1")

    def _transfers(self, title: str, transfers: tuple[Transfer, ...], absent: str) -> None:
        self._title(title)
        if not transfers:
            self._line(f"  none: {absent}")
        for transfer in transfers:
            self._row(f"{transfer.name}:", f"{transfer.seconds * 1e3:.3f} ms")
        if transfers:
            self._row("Activation Size:", f"{transfers[0].bytes / MIB:.1f} MiB")

    def _bubble(self, report: Training3D) -> None:
        bubble = report.bubble
        self._title("PERFORMANCE: PIPELINE BUBBLE")
        self._row("VPP Pipeline Bubble Multiplier:", f"{bubble.interleaving_multiplier:.2f}x")
        self._row("Pipeline Bubble Fraction:", f"{bubble.ideal_fraction:.2%} with equal stages")
        self._row("  of these stages:", f"{bubble.fraction:.2%} ({bubble.bubble_s * 1e3:.2f} ms)")

    def _data_parallel(self, report: Training3D) -> None:
        data = report.data_parallel
        self._title("COMMUNICATION: DATA PARALLELISM")
        self._heading("Microbatch Compute Times (slowest stage, achieved rates)")
        self._row("Forward Pass:", f"{data.forward_s * 1e3:.3f} ms")
        self._row("Backward Pass:", f"{data.backward_s * 1e3:.3f} ms")
        self._heading("Gradient Bucketing")
        size = f"numel: {data.parameters / 1e9:.3f} B, bytes: {data.parameters_bytes / GIB:.3f} GiB"
        self._row("Params per MP rank:", size)
        if data.num_buckets is None:
            self._row("Number of Buckets:", "as the layers or the measured collectives cut them")
        else:
            self._row("Bucket Size:", f"{data.parameters / data.num_buckets / 1e6:.2f}M params")
            self._row("Number of Buckets:", data.num_buckets)
        if not data.collectives:
            self._line("  none: nothing to reduce at the end of the step")
            return
        self._heading("Communication Breakdown (per bucket)")
        for found in data.collectives:
            self._line()
            self._line(f"  {found.name}", "bold")
            self._row("  Attributed to Latency:", f"{found.latency_s * 1e3:.3f} ms")
            self._row("  Attributed to Bandwidth:", f"{found.bandwidth_s * 1e3:.3f} ms")
            self._row("  Total:", f"{(found.latency_s + found.bandwidth_s) * 1e3:.3f} ms")
        self._heading("Total Communication Time (all buckets)")
        for found in data.collectives:
            kind = found.name.partition(" (")[0]
            exposed = f"{found.exposed_s * 1e3:.2f} ms exposed"
            self._row(f"{kind} Total:", f"{found.total_s * 1e3:.2f} ms, {exposed}")
        self._row("Combined DP Comm:", f"{sum(c.total_s for c in data.collectives) * 1e3:.2f} ms")
        self._cross_dc_impact(report)

    def _cross_dc_impact(self, report: Training3D) -> None:
        if report.cross_dc is None:
            return
        self._heading("Cross-DC Impact on DP Communication")
        pairs = [(c.name.partition(" (")[0], c.total_s, c.one_site_s) for c in report.data_parallel.collectives]
        for name, across, local in [*pairs, ("Total", sum(p[1] for p in pairs), sum(p[2] for p in pairs))]:
            slower = f"{(across - local) / local:.1%} slower than the {local * 1e3:.2f} ms of one DC"
            self._row(f"{name}:", f"{across * 1e3:.2f} ms ({slower})")

    def _iteration(self, report: Training3D) -> None:
        iteration = report.iteration
        self._title("PERFORMANCE: ITERATION TIME ANALYSIS")
        self._info(NOTES[0])
        for sentence in NOTES[1:]:
            self._line(f"  {sentence}")
        self._line()
        self._line(f"▶ TRANSFORMER BLOCK COMPONENTS ({iteration.block_layers}, one microbatch)", "bold")
        self._line("-" * 60)
        self._line(f"  {'':<{COMPONENT_WIDTH}} {'forward':>8} {'backward':>8} {'both':>8}")
        self._components(iteration.block, iteration.block_s, passes=True)
        self._line()
        self._line(f"  Total Block Time: {iteration.block_s * 1e3:.2f} ms")
        self._line()
        where = "" if iteration.stage == "whole model" else f" (on the {iteration.stage} pipeline stage)"
        self._line(f"▶ ITERATION TIME COMPONENTS{where}", "bold")
        self._line("-" * 60)
        self._components(iteration.components, report.final.iteration_time_s, passes=False)

    def _components(self, components: Iterable[Component], total_s: float, passes: bool) -> None:
        for part in components:
            share = 100.0 * part.seconds / total_s
            if passes:
                times = (part.forward_s, part.backward_s, part.seconds)
                cells = " ".join(f"{'' if t is None else f'{t * 1e3:.3f}':>8}" for t in times)
                self._line(f"  {part.name:<{COMPONENT_WIDTH}} {cells} ms {share:>5.1f}%  {_bar(share)}")
            else:
                self._line(
                    f"  {part.name:<{COMPONENT_WIDTH}}{part.seconds * 1e3:>10.2f} ms {share:>6.1f}%  {_bar(share)}"
                )

    def _final(self, report: Training3D) -> None:
        final = report.final
        self._line()
        self._line("▶ FINAL RESULTS", "bold")
        self._line("-" * 60)
        self._line()
        self._line(f"  Iteration Time: {final.iteration_time_s:.2f} seconds")
        self._line(f"  Tokens per Day (w/ 100% Goodput): {final.tokens_per_day / 1e9:.2f} B")
        self._line(f"  Ideal Iteration Time: {final.ideal_iteration_time_s:.5f} seconds")
        self._line()
        style = "green" if final.mfu >= GOOD_MFU else "yellow" if final.mfu >= FAIR_MFU else "red"
        self._line(f"✓ Theoretical MFU: {final.mfu:.2%}", style)
        if report.memory.fits is False:
            self._line("✗ This configuration does not fit in the device's memory (see MEMORY).", "bold red")

    def _title(self, text: str) -> None:
        self._line()
        self._line("=" * WIDTH)
        self._line(f" {text}", "bold")
        self._line("=" * WIDTH)

    def _heading(self, text: str) -> None:
        self._line("·" * WIDTH, "dim")
        self._info(text)

    def _info(self, text: str) -> None:
        self._line(f"ℹ {text}", "cyan")

    def _row(self, label: str, value: object) -> None:
        self._line(f"  {label:<{LABEL_WIDTH}} {value}")

    def _wrapped(self, sentence: str) -> None:
        for index, line in enumerate(Text(sentence).wrap(self._console, WIDTH - 4)):
            self._line(f"  {'-' if index == 0 else ' '} {line.plain.rstrip()}")

    def _line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text.rstrip(), style=style), soft_wrap=True)


def _short(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _bar(percent: float) -> str:
    """Return one block for every `PERCENT_PER_BLOCK`."""
    return "█" * int(percent / PERCENT_PER_BLOCK)
