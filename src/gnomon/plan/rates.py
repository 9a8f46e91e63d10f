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
from gnomon.spec.device_rates import operand_dtype

Curve = TypeVar("Curve")
# rows and columns of a tile, and its rate over the largest's: what is loaded per multiply-add grows as tiles shrink
TILES = ((256.0, 128.0, 1.0), (128.0, 256.0, 1.0), (128.0, 128.0, 0.95), (128.0, 64.0, 0.8), (64.0, 64.0, 0.65))
REFERENCE_HEAD = 128.0  # head size at which `attention` holds
ALIGNMENT_ELEMENTS = 8.0  # 16 bytes of 16-bit elements: NVIDIA, Matrix Multiplication Background User's Guide
SIXTEEN_BIT = ("fp16", "bf16", "fp8", "mxfp8", "nvfp4", "int8")


@dataclass(frozen=True, kw_only=True)
class GenericRates:
    """Constants of an accelerator generation (`DeviceRates`) times its peaks, as arrays.

    A product of (m, k) by (k, n) is cut into tiles; each compute unit works on one tile at a time, so the last wave
    leaves units idle, and edge tiles are computed whole. The library takes the best of a few tile sizes, of which
    smaller ones reuse less. Filling and draining a tile's loop takes the time of `half_depth` of its k steps; a
    product whose k is no multiple of `ALIGNMENT_ELEMENTS` cannot use the wide loads of these units; with such an n
    about every other load is a slow one.
    """

    matmul_flops: Array
    head_flops: Array
    attention_flops: Array
    score_elements: Array
    bandwidth: Array
    units: Array
    matrix_unit: Array
    half_depth: Array
    misaligned: Array
    alignment: Array
    kernel_s: Array
    variation: Array

    def price(self, operator: Operator, precision: str) -> tuple[Array, Array, str]:
        """Return (compute seconds, memory seconds, name of the rate) of one call."""
        memory_s = operator.traffic_bytes / self.bandwidth
        if operator.curve == "memory":
            return np.zeros_like(memory_s), memory_s + self._gap(operator, memory_s), "memory bandwidth"
        if operator.curve == "attention":
            compute_s = operator.flops / (self.attention_flops * self._head_share(operator.point[1]))
        else:
            compute_s = self._product_s(operator)
        gap = self._gap(operator, compute_s)
        return compute_s + gap, memory_s + gap, "generation's constants"

    def _head_share(self, head_dim: Array) -> Array:
        """Return the rate of attention with heads of this size over that with heads of 128 that fill a matrix unit.

        The products of a score grow with the head, its exponential does not: in the time of one exponential a unit
        does the products of `score_elements` of a head (FlashAttention-3, arXiv 2407.08608, section 3.1). A systolic
        unit is as wide as it is: of one of 256 a head of 128 leaves half idle in each of attention's products.
        """
        side = np.maximum(self.matrix_unit, 1.0)
        filled = head_dim / (np.ceil(head_dim / side) * side)
        share = filled * head_dim / (head_dim + self.score_elements)
        return np.asarray(share * (1.0 + self.score_elements / REFERENCE_HEAD))

    def _gap(self, operator: Operator, seconds: Array) -> Array:
        return np.where(seconds > 0, self.kernel_s * operator.kernels, 0.0)

    def _product_s(self, operator: Operator) -> Array:
        m, n, k, groups = operator.point
        rows, columns, depth = {
            "forward": (m, n, k),
            "grad_input": (m, k, n),
            "grad_weight": (n, k, m),
        }[operator.key]
        peak = self.head_flops if operator.wide else self.matmul_flops
        work = self._padded_area(rows, columns, groups) * 2.0 * (depth + self.half_depth)
        # a misaligned k spoils the loads of both operands, a misaligned n those of one in the backward pass
        one = np.where(n % self.alignment == 0, 1.0, 0.5 * (1.0 + self.misaligned))
        slower = 1.0 / np.where(k % self.alignment == 0, one, self.misaligned)
        return np.where(operator.flops > 0, work * slower / peak, 0.0)

    def _padded_area(self, rows: Array, columns: Array, groups: Array) -> Array:
        """Return rows x columns x groups as if every unit computed whole tiles until the last is done."""
        best = np.full(np.broadcast_shapes(np.shape(rows * columns), np.shape(groups * self.units)), np.inf)
        for height, width, share in TILES:
            tiles = np.ceil(rows / height) * np.ceil(columns / width) * groups
            waves = np.where(self.units > 0, np.ceil(tiles / np.maximum(self.units, 1.0)) * self.units, tiles)
            best = np.minimum(best, waves * (height * width / share))
        return best


@dataclass(frozen=True, kw_only=True)
class MeasuredRates:
    """The curves that `gnomon calibrate` measured."""

    efficiency: Efficiency

    @property
    def variation(self) -> Array:
        """Nothing: what was measured is that of these very devices."""
        return np.zeros(1)

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


def rates_of(cluster: ClusterSpec, precision: str, own_attention: bool = True) -> Rates:
    """Return what prices operators on `cluster`; raise PlanError when its peak in this precision is unknown.

    `own_attention` says that the software has attention kernels made for the generation.
    """
    if cluster.efficiency is not None:
        return MeasuredRates(efficiency=cluster.efficiency)
    device, rates = cluster.accelerator, cluster.rates
    assert rates is not None
    operand = operand_dtype(precision)
    wide = "bf16" if precision in SIXTEEN_BIT and precision != "fp16" else operand
    achieved = {dtype: _achieved(cluster, dtype) for dtype in (operand, wide)}
    if device.memory_bandwidth_bytes_per_s is None:
        raise PlanError(f"The memory bandwidth of '{device.name}' is unknown. Measure it with gnomon calibrate.")
    clock = _clock(device.tdp_w, rates.reference_power_w)
    attention = rates.attention_share(wide, own_attention)
    return GenericRates(
        matmul_flops=array(achieved[operand] * clock),
        head_flops=array(achieved[wide] * clock),
        attention_flops=array(
            clock * (achieved[wide] if attention is None else attention * (device.peak(wide) or 0.0))
        ),
        score_elements=array(rates.score_elements),
        bandwidth=array(device.memory_bandwidth_bytes_per_s * rates.memory),
        units=array(device.num_compute_units or 0.0),
        matrix_unit=array(device.matrix_unit or 0.0),
        half_depth=array(rates.half_depth),
        misaligned=array(rates.misaligned),
        alignment=array(ALIGNMENT_ELEMENTS),
        kernel_s=array(rates.kernel_s),
        variation=array(rates.variation),
    )


def _achieved(cluster: ClusterSpec, dtype: str) -> float:
    """Return the FLOP/s of large products; raise PlanError when peak or share are unknown."""
    device, rates = cluster.accelerator, cluster.rates
    peak, share = device.peak(dtype), rates.share("matmul", dtype) if rates else None
    if peak is None or share is None:
        known = [name for name in device.peak_flops if rates and rates.share("matmul", name)]
        raise PlanError(
            f"The {dtype} peak of '{device.name}' or the rate that it achieves is unknown; known: {known or 'none'}. "
            "Choose another precision, or measure the machine with gnomon calibrate."
        )
    return peak * share


def _clock(power_w: float | None, reference_w: float | None) -> float:
    """Return the clock under load over that of the reference board: dynamic power grows with its square or faster."""
    if power_w is None or reference_w is None:
        return 1.0
    return float(min(1.0, np.sqrt(power_w / reference_w)))


def lookup(curves: Mapping[str, Curve], key: str, precision: str, what: str) -> tuple[Curve, str]:
    """Return the curve for `key`, else for the precision, else `default`, and the name it was found under."""
    for name in (key, precision, "default"):
        if name in curves:
            return curves[name], name
    raise PlanError(
        f"No {what} rate for '{key}': this hardware has {sorted(curves) or 'none'}. "
        "Choose another precision, or measure the machine with gnomon calibrate."
    )
