"""Fit the constants of generations and families to measured results, pulled towards their priors.

Maximum a posteriori: minimise  sum w rho(r / noise) + sum u^2  over the parameters, with  r = log(predicted /
measured),  u = (value - prior) / spread,  and Huber's rho (Annals of Mathematical Statistics 35 (1964) 73), which
lets a few wrong rows be wrong. Levenberg and Marquardt's damping (SIAM J. Appl. Math. 11 (1963) 431).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.evaluate import evaluate
from gnomon.plan.published.parameters import Parameter, Rows, with_parameters

NOISE = 0.08  # of one row: what a formula without the row's own kernels cannot know
STEP = 0.02  # of a spread, for the derivative
SMALLEST_GAIN = 1e-7  # of the cost, below which an iteration ends the fit
Observe = Callable[[Cases], Array]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Values of the parameters after `iterations`, and what they leave."""

    values: Array
    uncertainties: Array
    log_errors: Array
    cost: float
    iterations: int
    finished: bool


def log_step_time(cases: Cases) -> Array:
    """Return the logarithm of the predicted step time."""
    return np.log(evaluate(cases).step_time_s)


def fit(
    cases: Cases,
    log_targets: Array,
    weights: Array,
    parameters: Sequence[Parameter],
    *,
    observe: Observe = log_step_time,
    start: Array | None = None,
    max_iterations: int = 30,
    progress: Callable[[Fit], None] | None = None,
) -> Fit:
    """Return the fitted values. `log_targets` holds the logarithms of what `observe` predicts, NaN where unmeasured.

    A case of weight zero has no influence. `progress` is called after each iteration; its values can be the `start`
    of a later call. The uncertainties are those of the linearised posterior.
    """
    problem = _Problem(cases, log_targets, weights, parameters, observe)
    scaled = problem.scale(np.asarray([p.prior for p in parameters]) if start is None else np.asarray(start))
    errors, damping = problem.errors(scaled), 1e-2
    cost = problem.cost(errors, scaled)
    result = problem.result(scaled, errors, cost, 0, not parameters)
    while not result.finished and result.iterations < max_iterations:
        jacobian = problem.jacobian(scaled, errors)
        normal, gradient = problem.normal_equations(jacobian, errors, scaled)
        scaled_next, errors_next, cost_next, damping = _step(problem, scaled, errors, cost, normal, gradient, damping)
        finished = cost - cost_next <= SMALLEST_GAIN * cost
        scaled, errors, cost = scaled_next, errors_next, cost_next
        result = problem.result(scaled, errors, cost, result.iterations + 1, finished)
        if progress is not None:
            progress(result)
    return problem.with_uncertainties(result, scaled, errors)


def _step(
    problem: _Problem, scaled: Array, errors: Array, cost: float, normal: Array, gradient: Array, damping: float
) -> tuple[Array, Array, float, float]:
    """Return (values, errors, cost, damping) of the first damped step that lowers the cost, else those given."""
    while damping < 1e8:
        # a parameter on its bound that the gradient pushes outwards does not move
        free = ~(((scaled <= problem.low) & (gradient > 0)) | ((scaled >= problem.high) & (gradient < 0)))
        change = np.zeros_like(scaled)
        damped = normal + damping * np.diag(np.diag(normal))
        change[free] = -np.linalg.solve(damped[np.ix_(free, free)], gradient[free])
        tried = np.clip(scaled + change, problem.low, problem.high)
        found = problem.errors(tried)
        tried_cost = problem.cost(found, tried)
        if tried_cost < cost:
            return tried, found, tried_cost, max(damping / 5.0, 1e-6)
        damping *= 4.0
    return scaled, errors, cost, damping


class _Problem:
    """The cost and its derivatives in units of the spreads."""

    def __init__(
        self, cases: Cases, log_targets: Array, weights: Array, parameters: Sequence[Parameter], observe: Observe
    ) -> None:
        self._cases, self._parameters, self._observe = cases, parameters, observe
        self._targets = np.asarray(log_targets, dtype=np.float64)
        self._weights = np.where(np.isfinite(self._targets), weights, 0.0)
        self._priors = np.asarray([p.prior for p in parameters])
        self._spreads = np.asarray([p.constant.spread for p in parameters])
        self._rows = [p.any_rows for p in parameters]
        self._groups = _disjoint(self._rows)
        self.low = (np.asarray([p.constant.low for p in parameters]) - self._priors) / self._spreads
        self.high = (np.asarray([p.constant.high for p in parameters]) - self._priors) / self._spreads

    def scale(self, values: Array) -> Array:
        return np.asarray(np.clip((values - self._priors) / self._spreads, self.low, self.high))

    def values(self, scaled: Array) -> Array:
        return np.asarray(self._priors + scaled * self._spreads)

    def errors(self, scaled: Array) -> Array:
        """Return log(predicted / measured), NaN where nothing was measured."""
        cases = with_parameters(self._cases, self._parameters, self.values(scaled))
        return np.broadcast_to(self._observe(cases), self._targets.shape) - self._targets

    def cost(self, errors: Array, scaled: Array) -> float:
        size = np.abs(np.where(self._weights > 0, errors, 0.0)) / NOISE
        huber = np.where(size <= 1.0, size * size, 2.0 * size - 1.0)
        return float(np.sum(self._weights * huber) + np.sum(scaled * scaled))

    def jacobian(self, scaled: Array, errors: Array) -> Array:
        """Return the derivative of the errors, (cases, parameters): one evaluation per group of parameters.

        Parameters of one group decide different cases, so that one evaluation moves them all.
        """
        result = np.zeros((errors.size, scaled.size))
        step = np.where(scaled + STEP <= self.high, STEP, -STEP)
        for group in self._groups:
            moved = scaled.copy()
            moved[group] += step[group]
            change = np.where(self._weights > 0, self.errors(moved) - errors, 0.0)
            for index in group:
                result[:, index] = np.where(self._rows[index], change / step[index], 0.0)
        return result

    def normal_equations(self, jacobian: Array, errors: Array, scaled: Array) -> tuple[Array, Array]:
        """Return half the Hessian and half the gradient of the cost, with Huber's weights."""
        size = np.abs(np.where(self._weights > 0, errors, 0.0))
        weights = self._weights / (NOISE * np.maximum(size, NOISE))
        weighted = jacobian * weights[:, None]
        residual = np.where(self._weights > 0, errors, 0.0)
        return weighted.T @ jacobian + np.eye(scaled.size), weighted.T @ residual + scaled

    def result(self, scaled: Array, errors: Array, cost: float, iterations: int, finished: bool) -> Fit:
        return Fit(
            values=self.values(scaled),
            uncertainties=self._spreads.copy(),
            log_errors=errors,
            cost=cost,
            iterations=iterations,
            finished=finished,
        )

    def with_uncertainties(self, result: Fit, scaled: Array, errors: Array) -> Fit:
        normal, _ = self.normal_equations(self.jacobian(scaled, errors), errors, scaled)
        if not scaled.size:
            return result
        return replace(result, uncertainties=np.sqrt(np.diag(np.linalg.inv(normal))) * self._spreads)


def _disjoint(rows: Sequence[Rows]) -> list[list[int]]:
    """Return groups of parameters that share no case, each parameter in the first group that has room."""
    groups: list[tuple[list[int], Rows]] = []
    for index, own in enumerate(rows):
        for number, (members, taken) in enumerate(groups):
            if not np.any(taken & own):
                groups[number] = ([*members, index], taken | own)
                break
        else:
            groups.append(([index], own))
    return [members for members, _ in groups]
