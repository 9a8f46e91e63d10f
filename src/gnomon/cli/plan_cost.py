"""`gnomon plan cost`: time, money and energy of a whole training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gnomon.cli._output import print_json
from gnomon.cli.plan_config import read_plan
from gnomon.cli.plan_tables import SOURCE, show

if TYPE_CHECKING:
    from rich.table import Table

    from gnomon.plan.cost import CostRates, TrainingCost
    from gnomon.plan.estimate import Estimate
    from gnomon.plan.goodput import Reliability

UNKNOWN = "unknown"
MOST_TOKENS = 1e18
RATE_OPTIONS = {
    "price_per_accelerator_hour": "--price-per-accelerator-hour",
    "pue": "--pue",
    "carbon_intensity_kg_per_kwh": "--carbon-intensity",
    "idle_power_fraction": "--idle-power",
}


def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with model, cluster, layout and workload.", metavar="CONFIG")
    ],
    tokens: Annotated[str, typer.Option("--tokens", help="Tokens to train on: 15T, 300B.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, +key=value, ~key.", metavar="OVERRIDES")
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price-per-accelerator-hour", help="In any currency.", show_default=False)
    ] = None,
    mtbf_hours: Annotated[
        float | None,
        typer.Option("--mtbf-hours", help="Mean time between failures of one accelerator.", show_default=False),
    ] = None,
    node_mtbf_hours: Annotated[
        float | None,
        typer.Option("--node-mtbf-hours", help="Of one node, beside its accelerators.", show_default=False),
    ] = None,
    checkpoint_time: Annotated[
        str | None, typer.Option("--checkpoint-time", help="To write a checkpoint: 90 s.", show_default=False)
    ] = None,
    checkpoint_bandwidth: Annotated[
        str | None,
        typer.Option("--checkpoint-bandwidth", help="Of the storage, per second: 2 TB.", show_default="unknown"),
    ] = None,
    stall_time: Annotated[
        str | None,
        typer.Option(
            "--stall-time",
            help="That an asynchronous checkpoint stops training: 5 s.",
            show_default="the whole checkpoint",
        ),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", help="Training between checkpoints: 30 min.", show_default="Daly's optimum"),
    ] = None,
    restart_time: Annotated[
        str | None, typer.Option("--restart-time", help="From a failure to training: 10 min.", show_default=False)
    ] = None,
    pue: Annotated[
        float | None, typer.Option("--pue", help="Power usage effectiveness.", show_default="unknown")
    ] = None,
    carbon_intensity: Annotated[
        float | None, typer.Option("--carbon-intensity", help="kg CO2e per kWh.", show_default="unknown")
    ] = None,
    idle_power: Annotated[
        float | None, typer.Option("--idle-power", help="Idle power over TDP.", show_default="always TDP")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Predict how long training on a number of tokens takes, with failures, and what it costs."""
    rates = {
        "price_per_accelerator_hour": price,
        "pue": pue,
        "carbon_intensity_kg_per_kwh": carbon_intensity,
        "idle_power_fraction": idle_power,
    }
    times = {
        "checkpoint_time": checkpoint_time,
        "stall_time": stall_time,
        "interval": interval,
        "restart_time": restart_time,
    }
    estimate = _estimate(config, overrides or [])
    mtbf = {"accelerator_mtbf_s": _mtbf_s("--mtbf-hours", mtbf_hours)}
    mtbf["node_mtbf_s"] = _mtbf_s("--node-mtbf-hours", node_mtbf_hours)
    reliability = _reliability(estimate, mtbf, checkpoint_bandwidth, times)
    _report(estimate, tokens, rates, reliability, as_json)


def _estimate(config: Path, overrides: list[str]) -> Estimate:
    from gnomon.plan.planner import plan
    from gnomon.spec.resolve import resolve_inputs

    return plan(*resolve_inputs(read_plan(config, overrides)))


def _report(
    estimate: Estimate, tokens: str, prices: dict[str, float | None], reliability: Reliability | None, as_json: bool
) -> None:
    from gnomon.plan.cost import CostRates, training_cost

    rates = CostRates.from_options(prices, RATE_OPTIONS)
    result = training_cost(estimate, _tokens(tokens), rates, reliability)
    if as_json:
        print_json({**result.to_mapping(), "fits": estimate.fits})
        return
    show(_table(result, rates))
    if estimate.fits is False:
        typer.echo("- this layout does not fit the memory: gnomon plan shows the nearest that do")
    for line in result.assumptions:
        typer.echo(f"- {line}")


def _tokens(text: str) -> float:
    from gnomon.errors import PlanError
    from gnomon.plan.cost import parse_count

    count = parse_count(text)
    if count > MOST_TOKENS:
        raise PlanError(f"--tokens is {text!r}; give at most {MOST_TOKENS:.0e}. Write 15T, 300B, 1.5e12 or 2000000.")
    return count


def _mtbf_s(option: str, hours: float | None) -> float | None:
    """Return the seconds of an MTBF in hours; raise PlanError unless it is positive and finite."""
    from math import inf

    from gnomon.errors import PlanError

    if hours is not None and not 0.0 < 3600.0 * hours < inf:
        raise PlanError(f"{option} is {hours:g}. Give a positive number of hours, such as 50000.")
    return None if hours is None else 3600.0 * hours


def _duration_s(name: str, text: str | None) -> float | None:
    """Return the seconds that an option gives; raise SpecError that names it for anything else."""
    from gnomon.errors import SpecError
    from gnomon.units import parse_seconds

    if text is None:
        return None
    try:
        seconds = parse_seconds(text)
    except SpecError as error:
        raise SpecError(f"{_option(name)}: {error}") from None
    if name == "interval" and seconds <= 0.0:
        raise SpecError(f"{_option(name)} is '{text}'; it must be positive.")
    return seconds


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _reliability(
    estimate: Estimate, mtbf_s: dict[str, float | None], bandwidth: str | None, times: dict[str, str | None]
) -> Reliability | None:
    """Return what the options say of failures; None when they give no MTBF and nothing that needs one."""
    from gnomon.errors import PlanError
    from gnomon.plan.cost import estimate_checkpoint_bytes
    from gnomon.plan.goodput import Reliability

    seconds = {name: _duration_s(name, text) for name, text in times.items()}
    rate = None if bandwidth is None else _bandwidth(bandwidth)
    given = [
        _option(name) for name, value in (*times.items(), ("checkpoint_bandwidth", bandwidth)) if value is not None
    ]
    if all(value is None for value in mtbf_s.values()):
        if given:
            raise PlanError(
                f"{given[0]} matters only with failures, and no MTBF is given. Give --mtbf-hours or --node-mtbf-hours."
            )
        return None
    if (seconds["checkpoint_time"] is None) == (rate is None):
        found = "neither is" if rate is None else "both are"
        raise PlanError(f"With an MTBF give either --checkpoint-time or --checkpoint-bandwidth; {found} given.")
    if seconds["restart_time"] is None:
        raise PlanError("With an MTBF the time to restart counts. Give it: --restart-time '10 min'.")
    return Reliability.from_mapping(
        {
            **mtbf_s,
            "checkpoint_s": seconds["checkpoint_time"] if rate is None else estimate_checkpoint_bytes(estimate) / rate,
            "stall_s": seconds["stall_time"],
            "recovery_s": seconds["restart_time"],
            "interval_s": seconds["interval"],
        },
        where="the options",
    )


def _bandwidth(text: str) -> int:
    """Return the bytes per second that the option gives; raise SpecError that names it for anything else."""
    from gnomon.errors import SpecError
    from gnomon.units import parse_bytes

    try:
        rate = parse_bytes(text)
    except SpecError as error:
        raise SpecError(f"--checkpoint-bandwidth: {error}") from None
    if rate <= 0:
        raise SpecError(f"--checkpoint-bandwidth is '{text}'; it must be positive.")
    return rate


def _table(result: TrainingCost, rates: CostRates) -> Table:
    from rich.table import Table

    from gnomon.units import format_bytes, format_count, format_percent, format_seconds

    table = Table(title="Training run", title_justify="left", header_style="bold")
    table.add_column("quantity", overflow="fold")
    table.add_column("value", justify="right", overflow="fold")
    table.add_column(SOURCE, style="dim", overflow="fold")
    steps = f"{result.num_steps} steps x {format_seconds(result.step_time_s)}"
    table.add_row("tokens", format_count(result.tokens), f"{result.num_steps} steps")
    table.add_row("training", _days(result.training_s), steps)
    table.add_row("checkpoint", format_bytes(result.checkpoint_bytes), "weights and optimizer states, each once")
    goodput = result.goodput
    if goodput is None:
        table.add_row("goodput", UNKNOWN, "needs --mtbf-hours or --node-mtbf-hours")
    else:
        table.add_row("failures", f"every {_days(goodput.mtbf_s)}", "rates of all parts added up")
        best = "Daly's optimum" if goodput.interval_s == goodput.optimal_interval_s else "as given"
        table.add_row("training between checkpoints", format_seconds(goodput.interval_s), best)
        table.add_row("[bold]goodput", f"[bold]{format_percent(goodput.goodput)}", "expected share of wall time")
        table.add_row("  checkpoints", format_percent(goodput.checkpoint_share), "")
        table.add_row("  restarts", format_percent(goodput.restart_share), "")
        table.add_row("  lost work", format_percent(goodput.lost_share), "")
    wall = UNKNOWN if result.wall_s is None else _days(result.wall_s)
    table.add_row("[bold]wall time", f"[bold]{wall}", "training / goodput")
    table.add_row("tokens per day", format_count(result.tokens_per_day), "tokens / wall time, or / training")
    hours = f"{result.num_accelerators} accelerators x hours"
    table.add_row("accelerator-hours", format_count(result.accelerator_hours), hours)
    price = rates.price_per_accelerator_hour
    cost = "needs --price-per-accelerator-hour" if price is None else f"{price:g} per accelerator-hour"
    table.add_row("cost", UNKNOWN if result.cost is None else format_count(result.cost), cost)
    power = UNKNOWN if result.power_w is None else f"{result.power_w:.0f} W"
    table.add_row("power per accelerator", power, "TDP, or linear between idle and TDP")
    table.add_row("energy of the accelerators", _kwh(result.accelerator_energy_kwh), "power x time")
    pue = "needs --pue" if rates.pue is None else f"x PUE {rates.pue:g}"
    table.add_row("energy of the data center", _kwh(result.facility_energy_kwh), pue)
    carbon = UNKNOWN if result.carbon_kg is None else f"{_figures(result.carbon_kg / 1000.0)} t CO2e"
    intensity = rates.carbon_intensity_kg_per_kwh
    missing = [name for name, given in (("--pue", rates.pue), ("--carbon-intensity", intensity)) if given is None]
    source = f"needs {' and '.join(missing)}" if missing else f"energy x {intensity:g} kg CO2e per kWh"
    table.add_row("carbon", carbon, source)
    return table


def _days(seconds: float) -> str:
    from gnomon.units import format_seconds

    return f"{seconds / 86400.0:.1f} days" if seconds >= 2 * 86400.0 else format_seconds(seconds)


def _kwh(value: float | None) -> str:
    return UNKNOWN if value is None else f"{_figures(value / 1000.0)} MWh"


def _figures(value: float) -> str:
    """Return four significant figures, without an exponent: 0.01234, 12.34, 1,234,000."""
    from math import floor, log10

    digits = 3 - floor(log10(value)) if value > 0 else 0
    return f"{round(value, digits):,.{max(0, min(digits, 12))}f}"
