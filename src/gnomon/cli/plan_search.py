"""`gnomon plan search`: find the best layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gnomon.cli._output import print_json
from gnomon.errors import PlanError

if TYPE_CHECKING:
    from gnomon.plan.search import SearchSpace
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
        str | None, typer.Option("--memory-limit", help="Peak memory that a rank may have, such as 70GiB.")
    ] = None,
    price: Annotated[
        float | None, typer.Option("--price-per-accelerator-hour", min=0.0, help="In any currency.")
    ] = None,
    sensitivities: Annotated[
        bool, typer.Option("--sensitivity", help="Also say what better hardware would bring.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Evaluate every layout of a model on a cluster; show the best, why the others lost, and the Pareto front."""
    from gnomon.plan.search import search
    from gnomon.plan.search.sensitivity import sensitivity
    from gnomon.units import parse_bytes

    model, cluster, workload = _problem(config, overrides or [])
    counts = _numbers(accelerators, "--accelerators") or [cluster.num_accelerators]
    settings: dict[str, Any] = {
        "accelerators": counts,
        "objective": objective,
        "space": _space(axes or [], model, cluster, workload, counts),
        "price_per_accelerator_hour": price,
    }
    with _Bar(as_json) as bar:
        limit = None if memory_limit is None else parse_bytes(memory_limit)
        result = search(model, cluster, workload, top=top, memory_limit_bytes=limit, progress=bar.show, **settings)
        gains = sensitivity(model, cluster, workload, **settings) if sensitivities else ()
    if as_json:
        print_json({**result.to_mapping(), "sensitivity": [gain.to_mapping() for gain in gains]})
        return
    from rich.console import Console

    from gnomon.plan.search.render import render_search

    Console().print(render_search(result, gains))


def _problem(config: Path, overrides: list[str]) -> tuple[ModelSpec, ClusterSpec, Workload]:
    from gnomon.config import load_config, require_values, to_plain
    from gnomon.spec.resolve import resolve_inputs

    loaded = load_config(config, overrides)
    require_values(loaded)
    plain = to_plain(loaded)
    plain.pop("layout", None)
    inputs = resolve_inputs(plain)
    return inputs.model, inputs.cluster, inputs.workload


def _space(
    axes: list[str], model: ModelSpec, cluster: ClusterSpec, workload: Workload, counts: list[int]
) -> SearchSpace | None:
    """Return the default space with the axes that were given; None when none was."""
    if not axes:
        return None
    from gnomon.plan.search import SearchSpace, default_space

    base = default_space(model, max(counts), cluster.accelerators_per_node, workload.global_batch)
    data = base.to_mapping()
    for text in axes:
        name, sign, values = text.partition("=")
        if not sign or not values:
            raise PlanError(f"--axis {text!r} is not AXIS=VALUE,VALUE. For example: --axis tp=1,2,4.")
        data[name] = [_value(name, value.strip()) for value in values.split(",")]
    return SearchSpace.from_mapping(data, where="--axis")


def _value(axis: str, text: str) -> Any:
    if axis == "recompute":
        mode, _, share = text.partition(":")
        return {"mode": mode, **({"share": float(share)} if share else {})}
    if axis == "sequence_parallel":
        return {"true": True, "false": False}.get(text.lower(), text)
    if axis == "schedule":
        return text
    try:
        return float(text) if axis.startswith("offload") else int(text)
    except ValueError:
        raise PlanError(f"--axis {axis}={text}: a number is needed.") from None


def _numbers(text: str | None, option: str) -> list[int]:
    if text is None:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise PlanError(f"{option} is {text!r}; give whole numbers, such as 64 or 64,128.") from None


class _Bar:
    """A progress bar on stderr; nothing when the output is for machines."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("layouts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet)
        self._task = self._progress.add_task("layouts", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, done: int, total: int) -> None:
        """Show how many candidates were looked at."""
        self._progress.update(self._task, completed=done, total=total)
