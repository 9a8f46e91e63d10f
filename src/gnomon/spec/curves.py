"""Achieved-over-peak curves: how fast a device really computes, by shape, dtype and size.

Every curve answers in absolute units (FLOP/s or bytes/s) and interpolates linearly in the logarithm of its
axes; outside its axes it keeps the value at the edge. A constant is a curve with one point.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from gnomon.spec._noun import FrozenMap, Noun

Array = NDArray[np.float64]


class SizeCurve(Noun):
    """A rate by size: `rate[i]` is achieved at `size[i]` (bytes, or any other positive extent)."""

    size: tuple[PositiveFloat, ...]
    rate: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.size or len(self.size) != len(self.rate):
            raise ValueError(f"size has {len(self.size)} points and rate {len(self.rate)}; they must match")
        if list(self.size) != sorted(set(self.size)):
            raise ValueError("size must increase strictly")
        return self

    @classmethod
    def constant(cls, rate: float) -> SizeCurve:
        """Return a curve that has the same rate at every size."""
        return cls(size=(1.0,), rate=(rate,))

    def at(self, size: ArrayLike) -> Array:
        """Return the rate at each size (same shape as `size`)."""
        clipped = np.log(np.maximum(np.asarray(size, dtype=np.float64), 1e-300))
        return np.exp(np.interp(clipped, np.log(self.size), np.log(self.rate)))


class GridCurve(Noun):
    """A rate over a grid of positive axes, stored flat in row-major order."""

    axes: tuple[tuple[PositiveFloat, ...], ...]
    rate: tuple[PositiveFloat, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        points = int(np.prod([len(axis) for axis in self.axes]))
        if not self.axes or points != len(self.rate):
            raise ValueError(f"the axes span {points} points but rate has {len(self.rate)}")
        if any(list(axis) != sorted(set(axis)) for axis in self.axes):
            raise ValueError("every axis must increase strictly")
        return self

    @classmethod
    def constant(cls, rate: float, dimensions: int) -> GridCurve:
        """Return a curve over `dimensions` axes that has the same rate everywhere."""
        return cls(axes=((1.0,),) * dimensions, rate=(rate,))

    def at(self, *coordinates: ArrayLike) -> Array:
        """Return the rate at each point; the coordinate arrays broadcast against each other."""
        points = np.broadcast_arrays(*[np.asarray(c, dtype=np.float64) for c in coordinates])
        table = np.log(np.asarray(self.rate)).reshape([len(axis) for axis in self.axes])
        result = np.zeros(points[0].shape)
        cells = [_locate(axis, point) for axis, point in zip(self.axes, points, strict=True)]
        for corner in np.ndindex(*([2] * len(self.axes))):
            index = tuple(low + (high - low) * bit for (low, high, _), bit in zip(cells, corner, strict=True))
            weight = np.ones(points[0].shape)
            for (_, _, fraction), bit in zip(cells, corner, strict=True):
                weight = weight * (fraction if bit else 1.0 - fraction)
            result = result + weight * table[index]
        return np.exp(result)


def _locate(axis: tuple[float, ...], point: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Return the lower and upper index around each point, and how far it is between them (0 to 1)."""
    logs = np.log(axis)
    position = np.interp(np.log(np.maximum(point, 1e-300)), logs, np.arange(len(axis), dtype=np.float64))
    low = np.minimum(position.astype(np.intp), len(axis) - 1)
    high = np.minimum(low + 1, len(axis) - 1)
    return low, high, position - low


class CollectiveCurve(Noun):
    """Time of one collective over `ranks` ranks: `latency_s + bytes / bandwidth(bytes)`, bytes as passed to the API."""

    ranks: PositiveInt
    latency_s: NonNegativeFloat
    bandwidth: SizeCurve

    def time_s(self, size_bytes: ArrayLike) -> Array:
        """Return seconds for each message size in bytes."""
        size = np.asarray(size_bytes, dtype=np.float64)
        return np.where(size > 0, self.latency_s + size / self.bandwidth.at(size), 0.0)


class Efficiency(Noun):
    """What one rank achieves on its share of the device, with a given software stack.

    `matmul[dtype.phase]`: FLOP/s over (m, n, k); phases `forward`, `grad_input`, `grad_weight`.
    `attention[dtype.phase]`: FLOP/s over (sequence length, head dimension), counting only the FLOPs that a
    causal mask leaves; phases `forward`, `backward`.
    `memory[kind.dtype]`: bytes/s by bytes moved, for the kinds of `gnomon.plan.traffic`.
    A key that is absent falls back to the dtype alone, then to `default`.
    """

    matmul: FrozenMap[str, GridCurve]
    attention: FrozenMap[str, GridCurve]
    memory: FrozenMap[str, SizeCurve]
    collectives: FrozenMap[str, CollectiveCurve] = Field(default_factory=dict)
    dispatch_forward_s: NonNegativeFloat = Field(description="host time to launch one operator in the forward pass")
    dispatch_backward_s: NonNegativeFloat = Field(description="host time to launch one operator in the backward pass")
    dispatch_optimizer_s: NonNegativeFloat = Field(
        default=0.0, description="host time per parameter tensor for clipping, optimizer and zeroing"
    )
    asynchronous: bool = Field(description="the host runs ahead of the device (CUDA), so launches hide behind work")
    communication_overlap: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of a collective that hides behind computation"
    )
    framework_bytes: NonNegativeFloat = Field(default=0.0, description="memory of the process before any tensor")
    allocator_overhead: NonNegativeFloat = Field(
        default=0.0, description="allocator reserve, as a fraction of the tensors' peak"
    )
