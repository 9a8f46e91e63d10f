"""`DeviceRates`: what an accelerator generation achieves of its peaks, in a few constants with a physical meaning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from gnomon.spec._noun import FrozenMap, Noun

Dtype = Literal["fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "fp4", "int8"]
Fraction = Annotated[float, Field(gt=0.0, le=1.0)]


def operand_dtype(precision: str) -> str:
    """Return the dtype that a product's operands have in a precision."""
    return {"mxfp8": "fp8", "nvfp4": "fp4"}.get(precision, precision)


class DeviceRates(Noun):
    """Constants for planning without a measurement; `gnomon calibrate` replaces them by measured curves.

    `sources` says for every field where it comes from, or that it is assumed.
    """

    name: str = ""
    matmul: FrozenMap[Dtype, Fraction] = Field(description="share of the dense peak in large matrix products")
    attention: FrozenMap[Dtype, Fraction] = Field(
        description="share of the dense peak in the fused attention kernel, with heads of 128 that fill a matrix unit"
    )
    portable_attention: Fraction | None = Field(
        default=None,
        description="the same of a fused 16-bit kernel written for an older generation, where that is slower",
    )
    score_elements: NonNegativeFloat = Field(
        default=0.0, description="head size whose products take as long as the exponential of one attention score"
    )
    memory: Fraction = Field(description="share of the memory bandwidth in large elementwise kernels")
    link: Fraction = Field(default=1.0, description="share of the line rate in collectives on the innermost tier")
    network: Fraction = Field(default=1.0, description="share of the line rate in collectives on the outer tiers")
    half_depth: NonNegativeFloat = Field(
        default=0.0, description="inner dimension at which a product runs half as fast"
    )
    misaligned: Fraction = Field(
        default=1.0, description="rate of a product whose sizes are no multiples of 8, over that of aligned ones"
    )
    reference_power_w: PositiveFloat | None = Field(
        default=None, description="board power at which `matmul` holds; a board with less runs at a lower clock"
    )
    kernel_s: NonNegativeFloat = Field(default=0.0, description="device seconds between two kernels")
    variation: NonNegativeFloat = Field(
        default=0.0, description="standard deviation of the compute times of equal devices, over their mean"
    )
    sources: FrozenMap[str, str] = Field(default_factory=dict)

    def attention_share(self, dtype: str, own_kernel: bool) -> float | None:
        """Return the share of the peak of a fused attention kernel, the generation's own or a portable one."""
        portable = None if own_kernel or dtype not in ("bf16", "fp16") else self.portable_attention
        return self.share("attention", dtype) if portable is None else portable

    def share(self, kind: Literal["matmul", "attention"], dtype: str) -> float | None:
        """Return the achieved share of the peak of a dtype; None when it is unknown."""
        shares: FrozenMap[Dtype, Fraction] = getattr(self, kind)
        return next((share for name, share in shares.items() if name == dtype), None)
