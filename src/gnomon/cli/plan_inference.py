"""`gnomon plan inference`: latency, throughput and memory of a served model, and the hardware that meets a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnomon.cli._output import print_json
from gnomon.cli.plan_config import read_plan
from gnomon.cli.plan_tables import show

if TYPE_CHECKING:
    from gnomon.plan.inference import HardwareSearch, InferenceEstimate, ServingTarget

KEYS = ("model", "cluster", "layout", "workload")
TARGET_OPTIONS = {"ttft_s": "--ttft-s", "tpot_s": "--tpot-s", "tokens_per_s": "--throughput"}


def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with model, cluster, layout and workload.", metavar="CONFIG")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, +key=value, ~key.", metavar="OVERRIDES")
    ] = None,
    ttft_s: Annotated[
        float | None, typer.Option("--ttft-s", help="Find hardware: seconds to the first token.", show_default=False)
    ] = None,
    tpot_s: Annotated[
        float | None, typer.Option("--tpot-s", help="Find hardware: seconds per output token.", show_default=False)
    ] = None,
    throughput: Annotated[
        float | None, typer.Option("--throughput", help="Find hardware: output tokens/s.", show_default=False)
    ] = None,
    clusters: Annotated[
        list[str] | None,
        typer.Option("--cluster", help="Search this catalog cluster; may be repeated.", show_default="all"),
    ] = None,
    prices: Annotated[
        list[str] | None,
        typer.Option(
            "--price",
            help="Per accelerator-hour: 2.5, or h100-sxm=2.5; may be repeated.",
            metavar="[NAME=]PRICE",
            show_default="unknown",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Predict prefill, decode and memory of a served model; with a target, find the least hardware that meets it."""
    from gnomon.errors import PlanError

    plain = read_plan(config, overrides or [])
    result: InferenceEstimate | HardwareSearch
    if ttft_s is None and tpot_s is None and throughput is None:
        for name, value in (("--cluster", clusters), ("--price", prices)):
            if value:
                raise PlanError(f"{name} belongs to a search. Give a target: --ttft-s, --tpot-s or --throughput.")
        result = _estimate(plain)
    else:
        from gnomon.plan.inference import ServingTarget

        wanted = {"ttft_s": ttft_s, "tpot_s": tpot_s, "tokens_per_s": throughput}
        result = _search(plain, ServingTarget.from_options(wanted, TARGET_OPTIONS), clusters, prices or [])
    _report(result, as_json)


def _report(result: InferenceEstimate | HardwareSearch, as_json: bool) -> None:
    from gnomon.plan.inference import HardwareSearch
    from gnomon.plan.inference.alternatives import nearest_serving
    from gnomon.plan.inference.render import render_hardware, render_inference

    if isinstance(result, HardwareSearch):
        if as_json:
            print_json(result)
        else:
            show(render_hardware(result))
        return
    fitting = nearest_serving(result) if result.fits is False else []
    if as_json:
        print_json({**result.to_mapping(), "alternatives": [_alternative(*pair) for pair in fitting]})
        return
    show(render_inference(result, fitting))
    for line in result.assumptions:
        typer.echo(f"- {line}")


def _alternative(changes: dict[str, Any], other: InferenceEstimate) -> dict[str, Any]:
    return {
        "changes": changes,
        "ttft_s": other.ttft_s,
        "tpot_s": other.tpot_s,
        "tokens_per_s": other.tokens_per_s,
        "memory_bytes": other.memory.total_bytes,
    }


def _estimate(config: Mapping[str, Any]) -> InferenceEstimate:
    from gnomon.plan.inference import InferenceWorkload, plan_inference
    from gnomon.spec import Layout
    from gnomon.spec.resolve import resolve_cluster, resolve_model

    _require(config, KEYS, optional=("layout",))
    layout = Layout.from_mapping(config.get("layout") or {}, where="layout")
    return plan_inference(
        resolve_model(config["model"]),
        resolve_cluster(config["cluster"], layout.num_ranks),
        layout,
        InferenceWorkload.from_mapping(config["workload"], where="workload"),
    )


def _search(
    config: Mapping[str, Any], target: ServingTarget, clusters: list[str] | None, prices: list[str]
) -> HardwareSearch:
    """Search the catalog; cluster, layout and batch of the configuration are what is looked for and not used."""
    from gnomon.plan.inference import InferenceWorkload, find_hardware
    from gnomon.spec.resolve import resolve_model

    _require(config, KEYS, optional=("cluster", "layout"))
    workload = InferenceWorkload.from_mapping(config["workload"], where="workload")
    return find_hardware(resolve_model(config["model"]), workload, target, clusters, _prices(prices))


def _require(config: Mapping[str, Any], keys: tuple[str, ...], optional: tuple[str, ...]) -> None:
    from gnomon.errors import SpecError, did_you_mean

    for key in config:
        if key not in keys:
            raise SpecError(f"The configuration has an unknown key '{key}'. {did_you_mean(str(key), keys)}")
    for key in keys:
        if key not in optional and config.get(key) is None:
            needed = ", ".join(k for k in keys if k not in optional)
            raise SpecError(f"The configuration has no '{key}'. It needs {needed}; {', '.join(optional)} is optional.")


def _prices(texts: list[str]) -> dict[str, float]:
    from gnomon.errors import PlanError

    found: dict[str, float] = {}
    for text in texts:
        name, _, price = text.rpartition("=")
        if (name or "*") in found:
            raise PlanError(f"--price is given twice for {name or 'all accelerators'}. Leave one out.")
        try:
            found[name or "*"] = float(price)
        except ValueError:
            raise PlanError(f"--price '{text}' is not a number. Write 2.5, or h100-sxm=2.5.") from None
    return found
