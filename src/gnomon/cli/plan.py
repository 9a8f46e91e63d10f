"""`gnomon plan`: predict one training step, and the verbs around it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gnomon.cli import plan_cost, plan_fit, plan_inference, plan_search, plan_validate
from gnomon.cli._output import free_path, print_json
from gnomon.cli._progress import ProgressBars
from gnomon.cli.plan_config import read_plan
from gnomon.cli.plan_page import check_page, write_page
from gnomon.cli.plan_tables import show

ESTIMATE = "estimate"


class PlanGroup(TyperGroup):
    """The verbs of `gnomon plan`; arguments that name none of them are those of `estimate`."""

    default = ESTIMATE

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `estimate` before arguments that begin with no verb."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [self.default, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=PlanGroup,
    no_args_is_help=True,
    help="Predict one training step: gnomon plan CONFIG [OVERRIDES]. Other questions have their own verb.",
)


@app.command(ESTIMATE)
def command(
    config: Annotated[
        Path, typer.Argument(help="YAML file with model, cluster, layout and workload.", metavar="CONFIG")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it: key=value, +key=value, ~key.", metavar="OVERRIDES")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the estimate as JSON; written only with --output.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for estimate.json.", show_default="current")
    ] = None,
    operators: Annotated[int, typer.Option("--operators", min=0, help="Show this many of the slowest operators.")] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page with pictures to this file.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
) -> None:
    """Predict step time, memory and MFU of a training step, and say where each number comes from."""
    from gnomon.plan.alternatives import nearest_fitting
    from gnomon.plan.planner import plan
    from gnomon.spec.resolve import resolve_inputs

    if html is not None:
        check_page(html)
    estimate = plan(*resolve_inputs(read_plan(config, overrides or [])))
    if estimate.fits is False:
        estimate = estimate.model_copy(update={"alternatives": nearest_fitting(estimate, plan)})
    if as_json:
        print_json(estimate)
    else:
        from gnomon.plan.render import render_estimate

        show(render_estimate(estimate, operators))
        for line in estimate.assumptions:
            typer.echo(f"- {line}")
    if output is not None or not as_json:
        wanted = (output or Path()) / "estimate.json"
        _say(estimate.save(free_path(wanted, force)), wanted, "Estimate", as_json)
    if html is not None:
        from gnomon.report.plan_page import estimate_page

        with ProgressBars() as bars:
            shown = bars.start("numbers of accelerators")
            written = write_page(html, force, lambda: estimate_page(estimate, shown))
        _say(written, html, "Page", as_json)


def _say(written: Path, wanted: Path, what: str, as_json: bool) -> None:
    kept = "" if written == wanted else f" ({wanted} exists and was kept; --force overwrites it)"
    typer.echo(f"{what} written to {written}{kept}", err=as_json)


app.command("search")(plan_search.command)
app.command("validate")(plan_validate.command)
app.command("fit")(plan_fit.command)
app.command("inference")(plan_inference.command)
app.command("cost")(plan_cost.command)
