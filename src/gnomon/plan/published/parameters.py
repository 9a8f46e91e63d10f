"""The constants that published results may correct: fields of `DeviceRates` and `StackSpec`, with what is plausible.

A parameter belongs to an accelerator generation or to a software family, never to a model, a source or a row. A
constant at one of its bounds says that its mechanism is absent there (a stack that overlaps nothing), and stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.network import NUM_TIERS
from gnomon.plan.published.priors import prior_of
from gnomon.plan.published.rows import Problem
from gnomon.spec.device_rates import operand_dtype
from gnomon.spec.stack import SHARED_FIELDS

SIXTEEN_BIT = ("bf16", "fp16")
TIERS = tuple(f"network.bandwidth.{tier}" for tier in range(NUM_TIERS))
Rows = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A field that may be fitted. `spread` is how far off the prior may well be (one standard deviation).

    `dtypes` are the keys of a field that is a mapping, which share one value. `arrays` are the places in `Cases` that
    it decides: a rate multiplies its peak there (`scales`), everything else stands there as it is.
    """

    field: str
    owner: Literal["generation", "family"]
    arrays: tuple[str, ...]
    spread: float
    low: float
    high: float
    unit: str
    meaning: str
    dtypes: tuple[str, ...] = ()
    scales: bool = False

    @property
    def name(self) -> str:
        """The field, with its dtype where it has one."""
        return f"{self.field}.{self.dtypes[0]}" if self.dtypes else self.field


def _rate(field: str, arrays: tuple[str, ...], spread: float, meaning: str, *dtypes: str) -> Constant:
    return Constant(
        field=field,
        owner="generation",
        arrays=arrays,
        spread=spread,
        low=0.05,
        high=1.0,
        unit="of peak",
        meaning=meaning,
        dtypes=dtypes,
        scales=True,
    )


def _kernel(field: str, spread: float, high: float, unit: str, meaning: str) -> Constant:
    return Constant(
        field=field,
        owner="generation",
        arrays=(f"rates.{field}",),
        spread=spread,
        low=0.0,
        high=high,
        unit=unit,
        meaning=meaning,
    )


def _stack(field: str, spread: float, high: float, unit: str, meaning: str, *arrays: str, low: float = 0.0) -> Constant:
    return Constant(
        field=field,
        owner="family",
        arrays=arrays or (f"storage.{field}",),
        spread=spread,
        low=low,
        high=high,
        unit=unit,
        meaning=meaning,
    )


def _overlap(field: str, meaning: str) -> Constant:
    return _stack(field, 0.3, 1.0, "share", meaning)


TIME_CONSTANTS = (
    _rate("matmul", ("rates.matmul_flops", "rates.head_flops"), 0.08, "large 16-bit products", *SIXTEEN_BIT),
    _rate("matmul", ("rates.matmul_flops",), 0.1, "large 8-bit products", "fp8"),
    _rate("matmul", ("rates.matmul_flops",), 0.15, "large 4-bit products", "fp4"),
    _rate("attention", ("rates.attention_flops",), 0.12, "fused attention kernel", *SIXTEEN_BIT),
    _rate("memory", ("rates.bandwidth",), 0.08, "elementwise kernels"),
    _rate("link", TIERS, 0.15, "large collectives on the innermost tier"),
    _rate("network", TIERS, 0.2, "large collectives on the outer tiers"),
    _kernel("half_depth", 96.0, 2048.0, "elements", "inner dimension at which a product runs half as fast"),
    _kernel("misaligned", 0.15, 1.0, "share", "rate of products whose sizes are no multiples of 8"),
    _kernel("variation", 0.004, 0.1, "share", "standard deviation of the compute times of equal devices"),
    _kernel("kernel_s", 1.5e-6, 2e-5, "s", "device time between two kernels"),
    _stack(
        "dispatch_s",
        1.5e-5,
        1e-4,
        "s",
        "host time to launch one operator",
        "storage.dispatch_forward_s",
        "storage.dispatch_backward_s",
    ),
    _stack("collective_dispatch_s", 2e-5, 1e-3, "s", "host time to launch one collective"),
    _stack("step_overhead_s", 5e-3, 0.1, "s", "host time per step outside the model"),
    _stack("run_ahead", 0.4, 1.0, "share", "part of the step in which launches run ahead of the device"),
    _overlap("overlap_tensor", "tensor-parallel traffic hidden"),
    _overlap("overlap_data", "gradient reduction hidden"),
    _overlap("overlap_shard", "gathering of sharded weights hidden"),
    _stack("shard_rate", 0.3, 1.0, "share", "of the network's rate, in gathering and scattering", low=0.02),
    _overlap("overlap_context", "context-parallel traffic hidden"),
    _overlap("overlap_expert", "all-to-all of the experts hidden"),
    _stack(
        "elementwise_passes", 0.4, 4.0, "passes", "memory passes over the least possible", "storage.passes", low=0.5
    ),
)
MEMORY_CONSTANTS = (
    _stack("memory_overhead", 0.1, 0.5, "share", "allocator reserve over the tensors' peak"),
    _stack("framework_bytes", 2e9, 1.2e10, "bytes", "context, libraries and buffers of collectives"),
)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One constant of one owner: its `value` in the catalog, its `prior` before any fit, and the cases it decides."""

    constant: Constant
    owner: str
    value: float
    prior: float
    rows: tuple[Rows, ...]

    @property
    def name(self) -> str:
        """Owner and field: `nvidia-ampere.matmul.bf16`."""
        return f"{self.owner}.{self.constant.name}"

    @property
    def any_rows(self) -> Rows:
        """The cases that depend on it through any array."""
        return np.asarray(np.logical_or.reduce(self.rows))


def free_parameters(problems: Sequence[Problem], constants: Sequence[Constant] = TIME_CONSTANTS) -> list[Parameter]:
    """Return the parameters that some problem depends on, in the order of `constants`."""
    found = []
    for constant in constants:
        owners = [_owner(problem, constant) for problem in problems]
        for owner in sorted(set(owners)):
            parameter = _parameter(problems, constant, owner, np.asarray([o == owner for o in owners]))
            if parameter is not None:
                found.append(parameter)
    return found


def _owner(problem: Problem, constant: Constant) -> str:
    if constant.owner == "family":
        shared = (owner for owner, constants in SHARED_FIELDS.items() if constant.field in constants)
        others = (getattr(problem.stack, owner) for owner in shared)
        return next((other for other in others if other), problem.stack.name)
    return problem.cluster.rates.name if problem.cluster.rates else ""


def _parameter(problems: Sequence[Problem], constant: Constant, owner: str, owned: Rows) -> Parameter | None:
    index = np.flatnonzero(owned)
    rows = tuple(np.zeros_like(owned) for _ in constant.arrays)
    for path, mask in zip(constant.arrays, rows, strict=True):
        mask[index] = [_reads(problems[i], constant, path) for i in index.tolist()]
    if not owner or not np.any(rows):
        return None
    first = problems[int(index[0])]
    noun: Any = first.stack if constant.owner == "family" else first.cluster.rates
    found = getattr(noun, constant.field)
    value = found if not constant.dtypes else next((found[d] for d in constant.dtypes if d in found), None)
    if value is None or not constant.low < value < constant.high:
        return None
    prior = prior_of(constant.name, owner)
    return Parameter(constant=constant, owner=owner, value=float(value), prior=prior, rows=rows)


def _reads(problem: Problem, constant: Constant, path: str) -> bool:
    """Return whether the constant decides the array at `path` of a problem."""
    if path in TIERS:
        # a cluster with fewer tiers repeats its last one
        tiers = problem.cluster.tiers
        place = min(TIERS.index(path), len(tiers) - 1)
        measured = bool(tiers) and tiers[place].achieved is not None
        return not measured and (place <= 0) == (constant.field == "link")
    rates = problem.cluster.rates
    if path == "rates.attention_flops" and rates and rates.portable_attention and not problem.stack.own_attention:
        return False
    return not constant.dtypes or _dtype(problem, path) in constant.dtypes


def _dtype(problem: Problem, path: str) -> str:
    """Return the dtype of layers' products, or of head and attention, which stay in 16 bits below that."""
    precision = problem.workload.precision
    operand = operand_dtype(precision)
    return "bf16" if path != "rates.matmul_flops" and operand in ("fp8", "fp4") else operand


def with_parameters(cases: Cases, parameters: Sequence[Parameter], values: Sequence[float] | Array) -> Cases:
    """Return `cases`, which hold the catalog's values, with `values` of `parameters` in their place."""
    changed: dict[str, dict[str, Any]] = {}
    for parameter, value in zip(parameters, values, strict=True):
        for path, rows in zip(parameter.constant.arrays, parameter.rows, strict=True):
            part, name, *place = path.split(".")
            fields = changed.setdefault(part, {})
            before = fields.get(name, getattr(getattr(cases, part), name))
            if place:
                at = int(place[0])
                fields[name] = (*before[:at], _put(before[at], rows, parameter, float(value)), *before[at + 1 :])
            else:
                fields[name] = _put(before, rows, parameter, float(value))
    return replace(cases, **{part: replace(getattr(cases, part), **fields) for part, fields in changed.items()})


def _put(before: Array, rows: Rows, parameter: Parameter, value: float) -> Array:
    wanted = before * (value / parameter.value) if parameter.constant.scales else value
    return np.where(rows, wanted, before)
