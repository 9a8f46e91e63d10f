"""Look up the achieved rate that prices an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gnomon.errors import PlanError
from gnomon.plan.operators import Operator
from gnomon.plan.traffic import memory_key
from gnomon.spec import Efficiency

Array = NDArray[np.float64]
Curve = TypeVar("Curve")


def lookup(curves: Mapping[str, Curve], key: str, precision: str, what: str) -> tuple[Curve, str]:
    """Return the curve for `key`, else for the precision, else `default`, and the name it was found under."""
    for name in (key, precision, "default"):
        if name in curves:
            return curves[name], name
    raise PlanError(
        f"No {what} rate for '{key}': this hardware has {sorted(curves) or 'none'}. "
        "Choose another precision, or measure the machine with gnomon calibrate."
    )


def operator_time_s(operator: Operator, efficiency: Efficiency, precision: str) -> tuple[Array, Array, str]:
    """Return (compute seconds, memory seconds, curve name) of one call; the device takes the larger of the two.

    The roofline of Williams et al. (CACM 2009) with achieved rates in place of the peaks.
    """
    if operator.curve == "memory":
        curve, name = lookup(efficiency.memory, memory_key(operator.key, precision), precision, "memory")
        return np.zeros_like(operator.traffic_bytes), _seconds(operator.traffic_bytes, curve.at(*operator.point)), name
    curves = efficiency.matmul if operator.curve == "matmul" else efficiency.attention
    grid, name = lookup(curves, operator.key, precision, operator.curve)
    copy, _ = lookup(efficiency.memory, memory_key("copy", precision), precision, "memory")
    compute = _seconds(operator.flops, grid.at(*operator.point))
    return compute, _seconds(operator.traffic_bytes, copy.at(operator.traffic_bytes)), name


def _seconds(amount: Array, rate: Array) -> Array:
    return amount / rate
