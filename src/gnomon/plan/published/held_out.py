"""Fit a table with all its sources, and without each one, to see whether the constants hold where none was fitted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.published.fit import Fit, fit
from gnomon.plan.published.observations import Observations
from gnomon.plan.published.parameters import MEMORY_CONSTANTS, Parameter, free_parameters
from gnomon.plan.published.score import statistics

Progress = Callable[[Fit], None]


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is fitted to a table: the constants of the step time, or with `memory` those of the memory."""

    observations: Observations
    parameters: list[Parameter]
    log_targets: Array
    memory: bool

    @classmethod
    def of_time(cls, observations: Observations) -> Study:
        """Return the fit of the step times."""
        parameters = free_parameters(observations.problems)
        return cls(
            observations=observations, parameters=parameters, log_targets=observations.log_step_time, memory=False
        )

    @classmethod
    def of_memory(cls, observations: Observations) -> Study:
        """Return the fit of the memory, of the families whose memory was measured."""
        measured = np.isfinite(observations.log_memory)
        found = free_parameters(observations.problems, MEMORY_CONSTANTS)
        parameters = [p for p in found if np.any(p.any_rows & measured)]
        return cls(observations=observations, parameters=parameters, log_targets=observations.log_memory, memory=True)

    @property
    def sources(self) -> list[str]:
        """Sources with something to compare, in the order of the table."""
        compared = np.isfinite(self.log_targets)
        return list(dict.fromkeys(s for s, use in zip(self.observations.sources, compared, strict=True) if use))

    def fit(
        self, without: str | None = None, start: Mapping[str, float] | None = None, progress: Progress | None = None
    ) -> Fit:
        """Return the fit without a source's rows, from values by name or from the priors."""
        found = self.observations
        begin = None if start is None else np.asarray([start[p.name] for p in self.parameters])
        return fit(
            found.cases,
            self.log_targets,
            found.weights(self.log_targets, without),
            self.parameters,
            observe=found.predicted_log_memory if self.memory else found.predicted_log_step_time,
            start=begin,
            progress=progress,
        )

    def values(self, fitted: Fit) -> dict[str, float]:
        """Return the fitted values by name."""
        return {p.name: float(value) for p, value in zip(self.parameters, fitted.values, strict=True)}

    def errors(self, fitted: Fit, source: str | None = None) -> dict[str, Any]:
        """Return the statistics of the errors that a fit leaves on the rows of a source, or on all."""
        rows = np.isfinite(self.log_targets)
        if source is not None:
            rows = rows & np.asarray([s == source for s in self.observations.sources])
        groups = [str(row.get("config_group") or row.get("id")) for row in self.observations.rows]
        used = [group for group, use in zip(groups, rows, strict=True) if use]
        sizes = Counter(used)
        weights = np.asarray([1.0 / sizes[group] for group in used])
        return statistics(np.exp(fitted.log_errors[rows]) - 1.0, weights)


def fitted_constants(study: Study, fitted: Fit) -> dict[str, dict[str, Any]]:
    """Return the values as the catalog writes them: {owner: {field: value or {dtype: value}}}."""
    document: dict[str, dict[str, Any]] = {}
    for parameter, value in zip(study.parameters, fitted.values, strict=True):
        fields = document.setdefault(parameter.owner, {})
        constant, rounded = parameter.constant, float(f"{value:.4g}")
        if constant.dtypes:
            fields.setdefault(constant.field, {}).update(dict.fromkeys(constant.dtypes, rounded))
        else:
            fields[constant.field] = rounded
    return document
