"""Achieved rates that price an operator: measured curves, or a generation's constants and the shape of the product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gnomon.errors import PlanError
from gnomon.plan.arrays import Array, array
from gnomon.plan.operator import Operator
from gnomon.plan.traffic import memory_key
from gnomon.spec import ClusterSpec, Efficiency

Curve = TypeVar("Curve")
OPERAND_DTYPE = {"mxfp8": "fp8", "nvfp4": "fp4"}
SIXTEEN_BIT = ("fp16", "bf16", "fp8", "mxfp8", "nvfp4")


@dataclass(frozen=True, kw_only=True)
class GenericRates:
    """Constants of an accelerator generation (`DeviceRates`) times its peaks, as arrays.

    A product of (m, k) by (k, n) reaches the share  e  of `matmul_flops`:
    e = k / (k + half_depth) x u / (u + half_tiles) x m n / (area of its tiles),  u = tiles / units.
    The first factor is the time to fill and drain a tile's loop, the second the tail of the last wave over the
    compute units, the third the part of the edge tiles that is thrown away.
    """

    matmul_flops: Array
    head_flops: Array
    attention_flops: Array
    bandwidth: Array
    units: Array
    half_depth: Array
    half_tiles: Array
    tile: Array
    kernel_s: Array

    def price(self, operator: Operator, precision: str) -> tuple[Array, Array, str]:
        """Return (compute seconds, memory seconds, name of the rate) of one call."""
        memory_s = operator.traffic_bytes / self.bandwidth
        if operator.curve == "memory":
            return np.zeros_like(memory_s), memory_s + self._gap(operator, memory_s), "memory bandwidth"
        if operator.curve == "attention":
            compute_s = operator.flops / self.attention_flops
        else:
            compute_s = self._product_s(operator)
        gap = self._gap(operator, compute_s)
        return compute_s + gap, memory_s + gap, "generation's constants"

    def _gap(self, operator: Operator, seconds: Array) -> Array:
        return np.where(seconds > 0, self.kernel_s * operator.kernels, 0.0)

    def _product_s(self, operator: Operator) -> Array:
        m, n, k, groups = operator.point
        rows, columns, depth = {
            "forward": (m, n, k),
            "grad_input": (m, k, n),
            "grad_weight": (n, k, m),
        }[operator.key]
        tiles = np.ceil(rows / self.tile) * np.ceil(columns / self.tile)
        area = np.maximum(tiles, 1e-9) * self.tile * self.tile
        filled = np.maximum(rows * columns, 1e-9) / area
        per_unit = np.maximum(tiles * groups, 1e-9) / self.units
        share = depth / (depth + self.half_depth + 1e-9) * per_unit / (per_unit + self.half_tiles) * filled
        peak = self.head_flops if operator.wide else self.matmul_flops
        return np.where(operator.flops > 0, operator.flops / (peak * np.maximum(share, 1e-6)), 0.0)


@dataclass(frozen=True, kw_only=True)
class MeasuredRates:
    """The curves that `gnomon calibrate` measured."""

    efficiency: Efficiency

    def price(self, operator: Operator, precision: str) -> tuple[Array, Array, str]:
        """Return (compute seconds, memory seconds, curve name) of one call.

        The roofline of Williams et al. (CACM 2009) with achieved rates in place of the peaks.
        """
        memory = self.efficiency.memory
        if operator.curve == "memory":
            curve, name = lookup(memory, memory_key(operator.key, precision), precision, "memory")
            seconds = operator.traffic_bytes / curve.at(operator.traffic_bytes)
            return np.zeros_like(seconds), seconds, name
        curves = self.efficiency.matmul if operator.curve == "matmul" else self.efficiency.attention
        grid, name = lookup(curves, f"{precision}.{operator.key}", precision, operator.curve)
        copy, _ = lookup(memory, memory_key("copy", precision), precision, "memory")
        point = operator.point[:3] if operator.curve == "matmul" else operator.point
        compute = operator.flops / grid.at(*np.broadcast_arrays(*point))
        return compute, operator.traffic_bytes / copy.at(operator.traffic_bytes), name


Rates = GenericRates | MeasuredRates


def rates_of(cluster: ClusterSpec, precision: str) -> Rates:
    """Return what prices operators on `cluster`; raise PlanError when its peak in this precision is unknown."""
    if cluster.efficiency is not None:
        return MeasuredRates(efficiency=cluster.efficiency)
    device, rates = cluster.accelerator, cluster.rates
    assert rates is not None
    operand = OPERAND_DTYPE.get(precision, precision)
    wide = "bf16" if precision in SIXTEEN_BIT and precision != "fp16" else operand
    for dtype in (operand, wide):
        if dtype not in device.peak_flops or dtype not in rates.matmul:
            known = sorted(set(device.peak_flops) & set(rates.matmul))
            raise PlanError(
                f"The {dtype} peak of '{device.name}' or the rate that it achieves is unknown; known: {known or 'none'}. "
                "Choose another precision, or measure the machine with gnomon calibrate."
            )
    if device.memory_bandwidth_bytes_per_s is None:
        raise PlanError(f"The memory bandwidth of '{device.name}' is unknown. Measure it with gnomon calibrate.")
    return GenericRates(
        matmul_flops=array(device.peak_flops[operand] * rates.matmul[operand]),
        head_flops=array(device.peak_flops[wide] * rates.matmul[wide]),
        attention_flops=array(device.peak_flops[wide] * rates.attention.get(wide, rates.matmul[wide])),
        bandwidth=array(device.memory_bandwidth_bytes_per_s * rates.memory),
        units=array(device.num_compute_units or 1.0),
        half_depth=array(rates.half_depth),
        half_tiles=array(rates.half_tiles if device.num_compute_units else 0.0),
        tile=array(rates.tile),
        kernel_s=array(rates.kernel_s),
    )


def lookup(curves: Mapping[str, Curve], key: str, precision: str, what: str) -> tuple[Curve, str]:
    """Return the curve for `key`, else for the precision, else `default`, and the name it was found under."""
    for name in (key, precision, "default"):
        if name in curves:
            return curves[name], name
    raise PlanError(
        f"No {what} rate for '{key}': this hardware has {sorted(curves) or 'none'}. "
        "Choose another precision, or measure the machine with gnomon calibrate."
    )
