"""Seconds of serving operators by what bounds them: the roofline, with the rates that price training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from gnomon.plan.arrays import Array
from gnomon.plan.cases import Cases
from gnomon.plan.inference.operators import HEAD, ServingOperator
from gnomon.plan.operator import Operator, Place
from gnomon.plan.rates import TILES, GenericRates, Rates

ROOFLINE_TERMS = ("weights_s", "kv_cache_s", "activations_s", "compute_s")
NARROWEST_TILE = 8.0  # matrix instructions take one operand of eight rows (NVIDIA PTX ISA, wgmma)


@dataclass(frozen=True, kw_only=True)
class ServingRates:
    """What prices the layers' products, and everything else; `kernel_s` is the device's time between two kernels."""

    products: Rates
    others: Rates
    precision: str
    product_precision: str
    kernel_s: Array

    @classmethod
    def of(cls, products: Rates, others: Rates, precision: str, product_precision: str) -> ServingRates:
        """Return the rates with the gaps between kernels taken out of them."""
        gap = others.kernel_s if isinstance(others, GenericRates) else np.zeros(1)
        return cls(
            products=_without_gaps(products),
            others=_without_gaps(others),
            precision=precision,
            product_precision=product_precision,
            kernel_s=gap,
        )


def _without_gaps(rates: Rates) -> Rates:
    return replace(rates, kernel_s=np.zeros(1)) if isinstance(rates, GenericRates) else rates


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Seconds by roofline term of all operators of one place, and of gaps and launches.

    `needed_bytes` are weights and cached keys and values, `flops` what one rank computes.
    """

    terms: dict[str, Array]
    gaps_s: Array
    host_s: Array
    needed_bytes: Array
    flops: Array

    @property
    def device_s(self) -> Array:
        """Seconds on the device, without the gaps between kernels."""
        return sum(self.terms.values(), start=np.zeros(1))


def seconds_at(place: Place, operators: Iterable[ServingOperator], cases: Cases, rates: ServingRates) -> Seconds:
    """Return the sums over the operators of one place (of `layer`: one average layer).

    An operator takes the longer of its computation and its memory traffic (Williams et al., CACM 2009). The time of
    one that memory bounds is divided over what it reads, by bytes.
    """
    terms = {term: np.zeros(1) for term in ROOFLINE_TERMS}
    gaps, host, needed, flops = (np.zeros(1) for _ in range(4))
    for item in operators:
        operator = item.operator
        if operator.place != place:
            continue
        compute, memory = _roofline_s(operator, rates)
        bound = memory >= compute
        traffic = np.where(operator.traffic_bytes > 0, operator.traffic_bytes, 1.0)
        per_byte = operator.calls * np.where(bound, memory, 0.0) / traffic
        terms["compute_s"] = terms["compute_s"] + operator.calls * np.where(bound, 0.0, compute)
        terms["weights_s"] = terms["weights_s"] + per_byte * item.weight_bytes
        terms["kv_cache_s"] = terms["kv_cache_s"] + per_byte * item.cache_bytes
        rest = operator.traffic_bytes - item.weight_bytes - item.cache_bytes
        terms["activations_s"] = terms["activations_s"] + per_byte * rest
        gaps = gaps + operator.calls * operator.kernels * rates.kernel_s
        host = host + operator.calls * operator.launches * cases.storage.dispatch_forward_s
        needed = needed + operator.calls * (item.weight_bytes + item.cache_bytes)
        flops = flops + operator.calls * operator.flops
    return Seconds(terms=terms, gaps_s=gaps, host_s=host, needed_bytes=needed, flops=flops)


def _roofline_s(operator: Operator, rates: ServingRates) -> tuple[Array, Array]:
    """Return (compute seconds, memory seconds) of one call."""
    if operator.curve != "matmul" or operator.name == HEAD:
        compute, memory, _ = rates.others.price(operator, rates.precision)
        if operator.curve == "matmul" and isinstance(rates.others, GenericRates):
            compute = np.minimum(compute, _few_rows_s(operator, rates.others, rates.others.head_flops))
        return compute, memory
    compute, memory, _ = rates.products.price(operator, rates.product_precision)
    if isinstance(rates.products, GenericRates):
        compute = np.minimum(compute, _few_rows_s(operator, rates.products, rates.products.matmul_flops))
    return compute, memory


def _few_rows_s(operator: Operator, rates: GenericRates, flops: Array) -> Array:
    """Return the compute seconds of a kernel for few rows: they are the narrow side of the tile, and the inner
    dimension is split until every unit has work. It reaches what the smallest tile does."""
    m, n, k, groups = operator.point
    rows = np.ceil(m / NARROWEST_TILE) * NARROWEST_TILE
    aligned = (n % rates.alignment == 0) & (k % rates.alignment == 0)
    share = TILES[-1][2] * np.where(aligned, 1.0, rates.misaligned)
    return np.asarray(2.0 * rows * n * k * groups / (flops * share), dtype=np.float64)
