"""Generic achieved rates of an accelerator generation, as fractions of its dense peaks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat

from gnomon.spec._noun import FrozenMap, Noun
from gnomon.spec.cluster import AcceleratorSpec, Dtype
from gnomon.spec.curves import Efficiency, GridCurve, SizeCurve

Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


class GenericEfficiency(Noun):
    """Constants for planning without a measurement; `gnomon calibrate` replaces them by curves.

    `matmul` and `attention` are fractions of the dense peak of the same dtype, `memory` of the memory bandwidth.
    `sources` says for every field where it comes from, or that it is assumed.
    """

    matmul: FrozenMap[Dtype, Fraction]
    attention: FrozenMap[Dtype, Fraction]
    memory: Fraction
    dispatch_s: NonNegativeFloat
    asynchronous: bool
    sources: FrozenMap[str, str]

    def rates(self, accelerator: AcceleratorSpec) -> Efficiency | None:
        """Return the rates of `accelerator` for the dtypes whose peak is known; None without a memory bandwidth.

        The keys are dtypes alone, for all phases, and `default` for memory traffic of every kind.
        """
        if accelerator.memory_bandwidth_bytes_per_s is None:
            return None
        peaks = accelerator.peak_flops
        return Efficiency(
            matmul={t: GridCurve.constant(f * peaks[t], 3) for t, f in self.matmul.items() if t in peaks},
            attention={t: GridCurve.constant(f * peaks[t], 2) for t, f in self.attention.items() if t in peaks},
            memory={"default": SizeCurve.constant(self.memory * accelerator.memory_bandwidth_bytes_per_s)},
            dispatch_forward_s=self.dispatch_s,
            dispatch_backward_s=self.dispatch_s,
            asynchronous=self.asynchronous,
        )
