"""The step that predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from gnomon.component import Component
from gnomon.errors import ConfigError
from gnomon.pipeline.run import open_run, refuse_existing, require
from gnomon.plan.estimate import Estimate
from gnomon.spec import ClusterSpec, HardwareProfile, Layout, ModelSpec, Workload
from gnomon.spec.resolve import resolve_model
from gnomon.units import format_seconds


class Plan(Component):
    """Predicts a training step on the calibrated machine.

    Without `model` it takes the largest GPT for which `num_steps` steps are predicted to last `train_budget_s`.
    """

    def __init__(
        self,
        run_dir: str,
        workload: Workload | Mapping[str, Any],
        layout: Layout | Mapping[str, Any] | None = None,
        num_steps: int = 200,
        model: ModelSpec | str | Mapping[str, Any] | None = None,
        train_budget_s: float = 60.0,
    ) -> None:
        self.run_dir = run_dir
        self.workload = workload if isinstance(workload, Workload) else Workload.from_mapping(workload, "workload")
        self.layout = layout if isinstance(layout, Layout) else Layout.from_mapping(layout or {}, "layout")
        self.workload.accumulation(self.layout.dp)  # a batch that does not divide should show before anything runs
        self.num_steps = num_steps
        self.model = model if isinstance(model, ModelSpec) or model is None else resolve_model(model)
        self.train_budget_s = train_budget_s
        self._check()

    def _check(self) -> None:
        """Raise at once what would otherwise show only after the machine was measured."""
        from gnomon.plan.checks import check_sequence
        from gnomon.plan.own_loop import check_own_loop, check_own_model, check_split
        from gnomon.plan.sizing import models_that_divide

        check_own_loop(self.layout, self.workload)
        if self.model is not None:
            check_own_model(self.model)
            check_sequence(self.model, self.workload)
            check_split(self.model, self.layout, self.workload)
        else:
            models_that_divide(self.layout, self.workload)
        budget_s = self.train_budget_s
        if not isinstance(budget_s, int | float) or not 0 < budget_s < math.inf:
            raise ConfigError(f"train_budget_s={budget_s!r}; set a positive number of seconds.")

    def execute(self, profile: HardwareProfile | None = None) -> Estimate:
        """Return the estimate, printed and saved as estimate.json; without input, read hardware.yaml of the run."""
        from gnomon.console import make_console
        from gnomon.plan.render import render_estimate

        run = open_run(self.run_dir, self.name)
        refuse_existing(run.estimate, self.name)
        if profile is None:
            profile = HardwareProfile.load(require(run.hardware, self.name))
        estimate = self._estimate(profile.cluster(self.layout.num_ranks))
        estimate.save(run.estimate)
        make_console(fold_in_pipes=True).print(render_estimate(estimate))
        self._warn_if_slow(estimate)
        return estimate

    def _warn_if_slow(self, estimate: Estimate) -> None:
        needed_s = estimate.step_time_s * self.num_steps
        if self.model is None and needed_s > self.train_budget_s:
            print(
                f"Even {estimate.model.name}, the smallest model, needs {format_seconds(needed_s)} for "
                f"{self.num_steps} steps, more than train_budget_s={self.train_budget_s:g}. "
                "It is trained all the same; set a smaller num_steps to make it shorter."
            )

    def _estimate(self, cluster: ClusterSpec) -> Estimate:
        from gnomon.plan.planner import plan
        from gnomon.plan.sizing import fit_model

        if self.model is not None:
            return plan(self.model, cluster, self.layout, self.workload)
        _, estimate = fit_model(
            cluster, self.layout, self.workload, num_steps=self.num_steps, budget_s=self.train_budget_s
        )
        return estimate
