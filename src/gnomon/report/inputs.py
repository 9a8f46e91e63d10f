"""What a report is made of, read from a run directory."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from gnomon.errors import ReportError, SpecError
from gnomon.plan.estimate import Estimate
from gnomon.profile.measurement import Measurement
from gnomon.report.commands import plan_command
from gnomon.report.compare import compare
from gnomon.report.comparison import Comparison
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import HardwareProfile
from gnomon.spec._noun import read_mapping


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """The documents of one run; at least one of `estimate` and `measurement` is there."""

    run: str
    created: str
    is_pipeline: bool = False
    estimate: Estimate | None = None
    measurement: Measurement | None = None
    comparison: Comparison | None = None
    hardware: HardwareProfile | None = None
    metrics: tuple[dict[str, Any], ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)


def read_inputs(run: RunDirectory) -> ReportInputs:
    """Read the documents of a run; raise ReportError when there is neither an estimate nor a measurement."""
    estimate = Estimate.load(run.estimate) if run.estimate.is_file() else None
    measurement = Measurement.load(run.measurement) if run.measurement.is_file() else None
    if estimate is None and measurement is None:
        raise ReportError(
            f"'{run.path}' has neither estimate.json nor measurement.json, so there is nothing to report. "
            f"Plan it with: {plan_command(str(run.path), is_pipeline(run))}"
        )
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    return ReportInputs(
        run=str(run.path),
        is_pipeline=is_pipeline(run),
        created=str(environment.get("date_utc") or _modified(run)),
        estimate=estimate,
        measurement=measurement,
        comparison=compare(estimate, measurement) if estimate and measurement else None,
        hardware=HardwareProfile.load(run.hardware) if run.hardware.is_file() else None,
        metrics=tuple(run.read_metrics()),
        environment=environment,
    )


def is_pipeline(run: RunDirectory) -> bool:
    """Return whether the configuration of the run is a pipeline, of which single steps can be run."""
    try:
        return "pipeline" in read_mapping(run.config)
    except SpecError:
        return False


def _modified(run: RunDirectory) -> str:
    """Return when the run was made, UTC, for runs whose env.json does not say it."""
    return datetime.fromtimestamp(run.environment.stat().st_mtime, UTC).isoformat(timespec="seconds")
