"""`gnomon convert`: samples per second as tokens per day or as MFU; also the scripts `sps2tpd` and `sps2mfu`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import print_json

if TYPE_CHECKING:
    from gnomon.plan.conversions import Throughput

Sourced = tuple[float, str]

AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]


def sps2tpd(
    samples_per_s: Annotated[
        float, typer.Option("--samples-per-sec", "-t", help="Samples per second, over all accelerators.")
    ],
    seq_len: Annotated[int, typer.Option("--seqlen", "-s", help="Tokens per sample.")],
    goodput: Annotated[float, typer.Option("--goodput", "-g", help="Share of the time spent training, 0 to 1.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Convert samples per second to tokens per day."""
    from gnomon.plan.conversions import tokens_per_day
    from gnomon.units import format_count

    volume = tokens_per_day(samples_per_s, seq_len, goodput)
    if as_json:
        figures = {"samples_per_s": samples_per_s, "seq_len": seq_len, "goodput": goodput, "tokens_per_day": volume}
        print_json(figures)
    else:
        typer.echo(
            f"{samples_per_s:g} samples/s of {seq_len} tokens at {100 * goodput:.2f}% goodput are "
            f"{format_count(volume)} tokens/day."
        )


def sps2mfu(
    samples_per_s: Annotated[
        float, typer.Option("--samples-per-sec", "-s", help="Samples per second, over all accelerators.")
    ],
    seq_len: Annotated[int, typer.Option("--seqlen", "-l", help="Tokens per sample.")],
    accelerators: Annotated[
        str, typer.Option("--n-accelerators", "-n", help="Their number, or nodes x accelerators: 16, 2x8.")
    ],
    model_size: Annotated[
        str | None,
        typer.Option("--model-size", "-m", help="Parameters: 70b, 1.5b, 100m, 1t. Counts 6 FLOPs for each."),
    ] = None,
    tflops: Annotated[
        float | None, typer.Option("--tflops-per-accelerator", "-t", help="Dense peak of one accelerator, in TFLOP/s.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Instead of -m: a model of the catalog or a config.json; counts attention and active experts.",
        ),
    ] = None,
    accelerator: Annotated[
        str | None, typer.Option("--accelerator", help="Instead of -t: an accelerator of the catalog, as h100-sxm.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Whose peak --accelerator is taken.", show_default="bf16")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert samples per second to tokens per second, FLOP/s and MFU."""
    from gnomon.errors import PlanError
    from gnomon.plan.conversions import parse_num_accelerators, throughput

    flops, flops_source = _flops_per_token(model_size, model, seq_len)
    peak, peak_source = _peak(tflops, accelerator, dtype)
    figures = throughput(samples_per_s, seq_len, flops, parse_num_accelerators(accelerators), peak)
    sources = {"flops_per_token": flops_source, "peak_flops_per_s": peak_source}
    if as_json:
        print_json({**figures.to_mapping(), "sources": sources})
    else:
        _print(figures, sources)
    if figures.mfu > 1.0:
        raise PlanError(
            f"An MFU of {100 * figures.mfu:.2f}% is impossible: no device exceeds its peak. "
            "Check the samples per second, the model size, the number of accelerators and the peak of the dtype."
        )


app = typer.Typer(help="Convert rates of training.", no_args_is_help=True)
app.command("sps2tpd")(sps2tpd)
app.command("sps2mfu")(sps2mfu)

sps2tpd_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
sps2tpd_app.command()(sps2tpd)

sps2mfu_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
sps2mfu_app.command()(sps2mfu)


def _flops_per_token(model_size: str | None, model: str | None, seq_len: int) -> Sourced:
    """Return the training FLOPs of one token, and where they come from."""
    from gnomon.errors import PlanError
    from gnomon.plan.conversions import approximate_flops_per_token, model_flops_per_token, parse_model_size
    from gnomon.spec.resolve import resolve_model
    from gnomon.units import format_count

    if (model_size is None) == (model is None):
        raise PlanError("Give either -m/--model-size (as 70b) or --model (a model of the catalog), one of them.")
    if model_size is not None:
        size = parse_model_size(model_size)
        return approximate_flops_per_token(size), f"6 x {format_count(size)} parameters, without attention"
    spec = resolve_model(str(model))
    sparse = "of the experts that a token is sent to, " if spec.moe is not None else ""
    source = f"'{spec.name}': matrix products {sparse}and causal attention over {seq_len} tokens"
    return model_flops_per_token(spec, max(seq_len, 1)), source


def _peak(tflops: float | None, accelerator: str | None, dtype: str | None) -> Sourced:
    """Return the dense peak FLOP/s of one accelerator, and where it comes from."""
    from gnomon.errors import PlanError
    from gnomon.plan.conversions import dense_peak_flops_per_s
    from gnomon.spec.catalog import load_accelerator

    if (tflops is None) == (accelerator is None):
        raise PlanError("Give either -t/--tflops-per-accelerator or --accelerator (as h100-sxm), one of them.")
    if tflops is not None:
        if dtype is not None:
            raise PlanError("--dtype chooses the peak of --accelerator; with -t/--tflops-per-accelerator leave it out.")
        return tflops * 1e12, "as given"
    name = dtype or "bf16"
    found = load_accelerator(str(accelerator))
    return dense_peak_flops_per_s(found, name), f"dense {name} peak of '{found.name}'"


def _print(figures: Throughput, sources: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from gnomon.console import make_console
    from gnomon.units import format_count, format_flops

    per_device = figures.peak_flops_per_s / figures.num_accelerators
    rows = (
        (
            "tokens/s",
            format_count(figures.tokens_per_s),
            f"{figures.samples_per_s:g} samples/s x {figures.seq_len} tokens",
        ),
        ("tokens/day", format_count(figures.tokens_per_day), "without interruptions"),
        ("model FLOPs per token", format_flops(figures.flops_per_token), sources["flops_per_token"]),
        ("achieved", format_flops(figures.achieved_flops_per_s, per_second=True), "tokens/s x FLOPs per token"),
        (
            "peak",
            format_flops(figures.peak_flops_per_s, per_second=True),
            f"{figures.num_accelerators} x {format_flops(per_device, per_second=True)}, {sources['peak_flops_per_s']}",
        ),
        ("MFU", f"{100 * figures.mfu:.2f}%", "achieved / peak"),
    )
    table = Table("", "", "from", box=None, show_header=False)
    for name, value, source in rows:
        table.add_row(name, Text(value, style="bold"), Text(source, style="dim"))
    make_console().print(table)
