"""`gnomon plan fit`: fit the constants of the catalog to published results."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gnomon.cli._output import free_path, print_json
from gnomon.cli._progress import ProgressBars
from gnomon.cli.plan_tables import show

if TYPE_CHECKING:
    from gnomon.plan.published.fit import Fit
    from gnomon.plan.published.held_out import Study

ALL = "all sources"


def command(
    file: Annotated[Path, typer.Argument(help="CSV file of published results.", metavar="FILE.csv")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="YAML file for the fitted constants.", show_default=False)
    ] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="JSON file to go on from after an interruption.", show_default=False)
    ] = None,
    leave_out: Annotated[
        bool, typer.Option("--leave-one-source-out", help="Also fit without each source, and predict it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the constants and errors as JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an --output that exists.")] = False,
) -> None:
    """Fit the constants of accelerator generations and software families to FILE.csv, pulled towards the catalog's."""
    from gnomon.plan.published.held_out import Study, fitted_constants
    from gnomon.plan.published.observations import observe
    from gnomon.plan.published.table import read_table

    table = read_table(file)
    for note in table.notes:
        typer.echo(note, err=True)
    with ProgressBars() as bar:
        observations = observe(table.rows(), bar.start("reading", len(table)))
        studies = {"step_time": Study.of_time(observations), "memory": Study.of_memory(observations)}
        saved = _State(state, file, studies)
        fits = {name: saved.fit(name, study, ALL, bar) for name, study in studies.items()}
        study = studies["step_time"]
        outside = {s: saved.fit("step_time", study, s, bar) for s in study.sources} if leave_out else {}
    constants: dict[str, dict[str, Any]] = {}
    for name, study in studies.items():
        for owner, fields in fitted_constants(study, fits[name]).items():
            constants.setdefault(owner, {}).update(fields)
    if as_json:
        print_json(_document(studies, fits, outside, constants))
    else:
        _print(studies, fits, outside)
    if output is not None:
        _write(output, force, constants, as_json)


class _State:
    """The values reached so far, by what is fitted and which source is left out, in a file that outlives Ctrl-C."""

    def __init__(self, path: Path | None, table: Path, studies: dict[str, Study]) -> None:
        from gnomon.errors import PlanError
        from gnomon.spec._noun import read_mapping

        self._path = path
        values = {p.name: p.value for study in studies.values() for p in study.parameters}
        self._of = {"table_sha256": hashlib.sha256(table.read_bytes()).hexdigest(), "catalog": values}
        self._fits: dict[str, Any] = {}
        if path is not None and path.exists():
            found = read_mapping(path)
            if {key: found.get(key) for key in self._of} != self._of:
                raise PlanError(
                    f"'{path}' belongs to another table or to other values of the catalog. "
                    "Delete it to begin anew, or name another --state."
                )
            self._fits = found["fits"]

    def fit(self, name: str, study: Study, left_out: str, bar: ProgressBars) -> Fit:
        """Fit, or go on where the file says that it stopped, and keep each iteration's values."""
        key = f"{name}, {left_out if left_out == ALL else f'without {left_out}'}"
        report = bar.start(key, None)

        def keep(fitted: Fit) -> None:
            report(fitted.iterations)
            self._fits[key] = study.values(fitted)
            self._save()

        return study.fit(None if left_out == ALL else left_out, self._fits.get(key), keep)

    def _save(self) -> None:
        from gnomon.spec._noun import write_atomically

        if self._path is not None:
            write_atomically(self._path, json.dumps({**self._of, "fits": self._fits}, indent=2) + "\n")


def _errors(study: Study, fitted: Fit) -> dict[str, Any]:
    return {source: study.errors(fitted, source) for source in study.sources}


def _outside(study: Study, fits: dict[str, Fit]) -> dict[str, Any]:
    return {source: study.errors(fitted, source) for source, fitted in fits.items()}


def _document(
    studies: dict[str, Study], fits: dict[str, Fit], outside: dict[str, Fit], constants: dict[str, Any]
) -> dict[str, Any]:
    parameters = [
        {
            "name": p.name,
            "unit": p.constant.unit,
            "meaning": p.constant.meaning,
            "prior": p.prior,
            "catalog": p.value,
            "fitted": float(value),
            "uncertainty": float(spread),
            "rows": int(p.any_rows.sum()),
        }
        for name, study in studies.items()
        for p, value, spread in zip(study.parameters, fits[name].values, fits[name].uncertainties, strict=True)
    ]
    errors = {name: {"all": s.errors(fits[name]), "by_source": _errors(s, fits[name])} for name, s in studies.items()}
    held = {"left_out": _outside(studies["step_time"], outside)} if outside else {}
    return {"parameters": parameters, "constants": constants, "errors": errors, **held}


def _print(studies: dict[str, Study], fits: dict[str, Fit], outside: dict[str, Fit]) -> None:
    from gnomon.plan.published.render import render_errors, render_fit, render_held_out

    for name, study in studies.items():
        if study.parameters:
            show(render_fit(study.parameters, fits[name]))
    study = studies["step_time"]
    inside = _errors(study, fits["step_time"])
    if outside:
        show(render_held_out(inside, _outside(study, outside)))
    else:
        show(render_errors({**inside, "all": study.errors(fits["step_time"])}))


def _write(output: Path, force: bool, constants: dict[str, Any], quiet: bool) -> None:
    import yaml

    from gnomon.spec._noun import write_atomically

    written = write_atomically(free_path(output, force), yaml.safe_dump(constants, sort_keys=False))
    kept = "" if written == output else f" ({output} exists and was kept; --force overwrites it)"
    typer.echo(f"Constants written to {written}{kept}", err=quiet)
