"""`gnomon plan search`: find the best layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gnomon.cli._output import print_json
from gnomon.cli._progress import ProgressBars
from gnomon.cli.plan_config import read_plan
from gnomon.cli.plan_page import check_page, write_page
from gnomon.cli.plan_tables import show
from gnomon.errors import PlanError

MOST_PER_HOUR = 1e9  # as gnomon.plan.cost.MOST_PER_HOUR, which would take long to import here

if TYPE_CHECKING:
    from gnomon.plan.search.result import Candidate, SearchResult
    from gnomon.plan.search.sensitivity import Gain
    from gnomon.spec import ClusterSpec, ModelSpec, Workload


def command(
    config: Annotated[Path, typer.Argument(help="YAML file with model, cluster and workload.", metavar="CONFIG")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, +key=value, ~key.", metavar="OVERRIDES")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Show this many of the best layouts.")] = 10,
    objective: Annotated[
        Literal["step_time", "memory", "cost"], typer.Option("--objective", help="What the best has least of.")
    ] = "step_time",
    axes: Annotated[
        list[str] | None,
        typer.Option("--axis", help="Allow only these values: tp=1,2,4 (repeat for other axes).", metavar="AXIS=V,.."),
    ] = None,
    accelerators: Annotated[
        str | None, typer.Option("--accelerators", help="Numbers of accelerators: 64 or 64,128,256.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option("--memory-limit", help="Peak memory that a rank may have, such as 70GiB; at most the device's."),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option("--price-per-accelerator-hour", min=0.0, max=MOST_PER_HOUR, help="In any currency."),
    ] = None,
    sensitivities: Annotated[
        bool, typer.Option("--sensitivity", help="Also say what better hardware would bring.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with pictures to this file.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a page that exists.")] = False,
) -> None:
    """Evaluate every layout of a model on a cluster; show the best, why the others lost, and the Pareto front."""
    from gnomon.plan.search import search
    from gnomon.plan.search.sensitivity import sensitivity

    if html is not None:
        check_page(html)
    model, cluster, workload = _problem(config, overrides or [])
    counts = _numbers(accelerators, "--accelerators") or [cluster.num_accelerators]
    settings: dict[str, Any] = {
        "accelerators": counts,
        "objective": objective,
        "axes": _axes(axes or []),
        "price_per_accelerator_hour": price,
    }
    limit = _limit(memory_limit)
    gains: tuple[Gain, ...] = ()
    smallest = None
    with ProgressBars() as bars:
        settings["progress"] = bars.start("layouts")
        result = search(model, cluster, workload, top=top, memory_limit_bytes=limit, **settings)
        if not result.best:
            settings["progress"] = bars.start("the smallest layout")
            smallest = _smallest(model, cluster, workload, settings)
        elif sensitivities:
            settings["progress"] = bars.start("layouts on better hardware")
            gains = sensitivity(model, cluster, workload, memory_limit_bytes=limit, **settings)
    _print(result, gains, smallest, as_json)
    if html is not None:
        _write(html, force, result, gains, as_json)


def _print(result: SearchResult, gains: tuple[Gain, ...], smallest: Candidate | None, as_json: bool) -> None:
    from gnomon.plan.search.render import nothing_fits, render_search

    if not as_json:
        show(render_search(result, gains, smallest))
        return
    print_json({**result.to_mapping(), "sensitivity": [gain.to_mapping() for gain in gains]})
    if not result.best:
        typer.echo(nothing_fits(smallest), err=True)


def _write(html: Path, force: bool, result: SearchResult, gains: tuple[Gain, ...], as_json: bool) -> None:
    from gnomon.report.search_page import render_search_page

    if not result.best:
        raise PlanError(f"'{html}' was not written: no layout fits, so there is none to show.")
    with ProgressBars() as bars:
        shown = bars.start("numbers of accelerators")
        written = write_page(html, force, lambda: render_search_page(result, gains, shown))
    kept = "" if written == html else f" ({html} exists and was kept; --force overwrites it)"
    typer.echo(f"Page written to {written}{kept}", err=as_json)


def _smallest(model: ModelSpec, cluster: ClusterSpec, workload: Workload, settings: dict[str, Any]) -> Candidate | None:
    """Return the layout that needs the least memory, whatever the device has."""
    from gnomon.plan.search import search

    boundless = cluster.accelerator.model_copy(update={"memory_bytes": None})
    wanted = {**settings, "objective": "memory"}
    found = search(model, cluster.model_copy(update={"accelerator": boundless}), workload, top=1, **wanted)
    return found.best[0].candidate if found.best else None


def _limit(text: str | None) -> float | None:
    from gnomon.units import parse_bytes

    if text is None:
        return None
    limit = parse_bytes(text)
    if limit <= 0:
        raise PlanError(f"--memory-limit is '{text}'; it must be positive, such as 70GiB.")
    return limit


def _problem(config: Path, overrides: list[str]) -> tuple[ModelSpec, ClusterSpec, Workload]:
    """Return what is searched; a layout in the file has to be one, and is not used."""
    from gnomon.spec import Layout
    from gnomon.spec.resolve import resolve_inputs

    for text in overrides:
        if text.lstrip("+~").startswith("layout"):
            raise PlanError(f"'{text}' sets a layout, which the search chooses. Fix an axis of it: --axis tp=1,2,4.")
    plain = read_plan(config, overrides)
    layout = plain.pop("layout", None)
    if layout is not None:
        Layout.from_mapping(layout, where="layout")
        typer.echo(f"note: the layout in {config} is not used; --axis fixes parts of it", err=True)
    inputs = resolve_inputs(plain)
    return inputs.model, inputs.cluster, inputs.workload


def _axes(texts: list[str]) -> dict[str, list[Any]]:
    """Return {axis: values}."""
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        if not sign or not values:
            raise PlanError(f"--axis {text!r} is not AXIS=VALUE,VALUE. For example: --axis tp=1,2,4.")
        if name in found:
            raise PlanError(f"--axis {name} is given twice. Give all its values at once: --axis {name}=1,2,4.")
        found[name] = [_value(name, value.strip()) for value in values.split(",")]
    return found


def _value(axis: str, text: str) -> Any:
    if axis == "recompute":
        mode, _, share = text.partition(":")
        return {"mode": mode, **({"share": _number(axis, share, float)} if share else {})}
    if axis == "sequence_parallel":
        return {"true": True, "false": False}.get(text.lower(), text)
    if axis == "schedule":
        return text
    return _number(axis, text, float if axis.startswith("offload") else int)


def _number(axis: str, text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise PlanError(f"--axis {axis}: '{text}' is not {what}.") from None


def _numbers(text: str | None, option: str) -> list[int]:
    if text is None:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"{option} is {text!r}; give whole numbers, such as 64 or 64,128.") from None
