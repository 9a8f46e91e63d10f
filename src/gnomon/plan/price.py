"""Seconds of operators, and their sums by pass and by term."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.operator import Operator, Place

PASSES = ("forward", "input", "weight")


@dataclass(frozen=True, kw_only=True)
class PricedOperator:
    """An operator with its time per call: on the device, and for the host to launch it."""

    operator: Operator
    device_s: Array
    launch_s: Array
    memory_bound: NDArray[np.bool_]
    curve_name: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """Device seconds by pass (forward, input gradient, weight gradient), and the same seconds by term.

    `attention` is the part of the forward that is attention, `repeated` what recomputing all of it takes. `host` is
    what its launches take; `stalls` is the sum over operators of what a launch takes longer than the operator, which
    shows where the host cannot run ahead. Those of the backward pass are also given alone.
    """

    passes: dict[str, Array]
    terms: dict[str, Array]
    attention: Array
    repeated: Array
    host: Array
    host_backward: Array
    stalls: Array
    stalls_backward: Array


def price(operator: Operator, cases: Cases) -> PricedOperator:
    """Return the operator with the time of its calls at the achieved rates of the cases."""
    compute, memory, name = cases.rates.price(operator, cases.precision)
    storage = cases.storage
    dispatch = {
        "forward": storage.dispatch_forward_s,
        "backward": storage.dispatch_backward_s,
        "optimizer": np.zeros(1),
    }[operator.phase]
    there = (operator.flops > 0) | (operator.traffic_bytes > 0)  # other models of the batch may not have it
    return PricedOperator(
        operator=operator,
        device_s=operator.calls * np.maximum(compute, memory),
        launch_s=operator.calls * operator.launches * dispatch * there,
        memory_bound=memory >= compute,
        curve_name=name,
    )


def work_at(priced: Iterable[PricedOperator], place: Place) -> Work:
    """Return the sums over the operators of one place."""
    passes = {name: np.zeros(1) for name in PASSES}
    terms: dict[str, Array] = {}
    attention, repeated, host, backward, stalls, stalls_backward = (np.zeros(1) for _ in range(6))
    for item in priced:
        operator = item.operator
        if operator.place != place:
            continue
        name = "forward" if operator.phase == "forward" else "weight" if operator.key == "grad_weight" else "input"
        passes[name] = passes[name] + item.device_s
        terms[operator.term] = terms.get(operator.term, np.zeros(1)) + item.device_s
        if name == "forward":
            repeated = repeated + item.device_s * operator.again
            attention = attention + item.device_s * (operator.term == "attention_s")
        host = host + item.launch_s
        backward = backward + item.launch_s * (operator.phase == "backward")
        waited = np.maximum(item.launch_s - item.device_s, 0.0)
        stalls = stalls + waited
        stalls_backward = stalls_backward + waited * (operator.phase == "backward")
    return Work(
        passes=passes,
        terms=terms,
        attention=attention,
        repeated=repeated,
        host=host,
        host_backward=backward,
        stalls=stalls,
        stalls_backward=stalls_backward,
    )


def total(arrays: Iterable[Array]) -> Array:
    """Return the elementwise sum of arrays, in order, so that an array gives what its scalars give."""
    first, *others = list(arrays) or [np.zeros(1)]
    return sum(others, start=first)
