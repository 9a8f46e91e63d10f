"""Samples per second as tokens per day and as model FLOPs utilisation (MFU)."""

from __future__ import annotations

import re
from typing import get_args

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from gnomon.errors import PlanError, did_you_mean
from gnomon.plan.flops import model_flops_per_step
from gnomon.spec import AcceleratorSpec, ModelSpec, Noun
from gnomon.spec.device_rates import Dtype

LARGEST = 1e30
SMALLEST_PLAIN_SIZE = 10**6
DAY_S = 86400
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)([kmbt]?)", re.IGNORECASE)
_SIZE_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_DEVICES = re.compile(r"([0-9]{1,9})(?:[xX]([0-9]{1,9}))?")


class Throughput(Noun):
    """What a rate of samples means: tokens, FLOP/s (over all accelerators) and the share of the peak."""

    samples_per_s: PositiveFloat
    seq_len: PositiveInt
    num_accelerators: PositiveInt
    tokens_per_s: PositiveFloat
    tokens_per_day: PositiveFloat
    flops_per_token: PositiveFloat
    achieved_flops_per_s: PositiveFloat
    peak_flops_per_s: PositiveFloat
    mfu: NonNegativeFloat


def parse_model_size(text: str) -> int:
    """Return the number of parameters of `'70b'`, `'100m'`, `'1.5t'` or a plain number.

    Raises PlanError for anything else, and for a plain number below a million, whose suffix was forgotten.
    """
    match = _SIZE.fullmatch(text.strip())
    size = round(float(match[1]) * _SIZE_FACTORS[match[2].lower()]) if match and len(text) < 32 else 0
    if match is None or size < 1:
        raise PlanError(f"'{text}' is not a model size. Give a number of parameters: 70b, 1.5b, 100m or 1t.")
    if size < SMALLEST_PLAIN_SIZE and not match[2]:
        raise PlanError(
            f"The model size {match[1]} is {size} parameter{'s' * (size > 1)}. "
            f"Write {match[1]}b for billions or {match[1]}m for millions."
        )
    return size


def parse_num_accelerators(text: str) -> int:
    """Return the number of accelerators of `'16'`, or of `'2x8'` (nodes x accelerators per node); raise PlanError."""
    match = _DEVICES.fullmatch(text.strip())
    count = int(match[1]) * int(match[2] or 1) if match else 0
    if count < 1:
        raise PlanError(f"'{text}' is not a number of accelerators. Give 16, or 2x8 for two nodes of eight.")
    return count


def dense_peak_flops_per_s(accelerator: AcceleratorSpec, dtype: str) -> float:
    """Return the dense peak of one accelerator; raise PlanError for a dtype whose peak is not known."""
    peaks: dict[str, float] = {str(name): peak for name, peak in accelerator.peak_flops.items()}
    if dtype not in peaks:
        known = f"It has those of {', '.join(peaks)}." if dtype in get_args(Dtype) else did_you_mean(dtype, peaks)
        raise PlanError(f"The catalog has no {dtype} peak of '{accelerator.name}'. {known}")
    return peaks[dtype]


def approximate_flops_per_token(num_parameters: float) -> float:
    """Return 6 N: two FLOPs per parameter forward, four backward, attention left out (arXiv 2001.08361, sec. 2.1)."""
    return 6.0 * num_parameters


def model_flops_per_token(model: ModelSpec, seq_len: int) -> float:
    """Return the training FLOPs of one token as the planner counts them: causal attention, active experts only.

    Raises PlanError for a model whose FLOPs its sequence length alone does not decide.
    """
    if model.encoder is not None or model.diffusion is not None:
        raise PlanError(
            f"The FLOPs of a token of '{model.name}' depend on more than one sequence length and a causal mask. "
            "gnomon plan counts them; or give the FLOPs by --model-size."
        )
    return float(model_flops_per_step(model, 1, seq_len, causal=True))


def tokens_per_day(samples_per_s: float, seq_len: int, goodput: float = 1.0) -> float:
    """Return tokens per day when the share `goodput` of the time is spent training; raise PlanError."""
    _check_positive(samples_per_s, "samples per second")
    _check_positive(seq_len, "the sequence length")
    _check_positive(samples_per_s * seq_len, "samples per second times the sequence length")
    if not 0.0 <= goodput <= 1.0:
        raise PlanError(f"The goodput is {goodput}; it is a share of the time, from 0 to 1.")
    return samples_per_s * seq_len * goodput * DAY_S


def throughput(
    samples_per_s: float, seq_len: int, flops_per_token: float, num_accelerators: int, peak_flops_per_s: float
) -> Throughput:
    """Return tokens, FLOP/s and MFU of a rate of samples; `peak_flops_per_s` is that of one accelerator.

    MFU is the model FLOP/s over the dense peak of all accelerators (PaLM, arXiv 2204.02311, appendix B).
    Raises PlanError for figures that are not positive and finite; an MFU above 1 is returned, for the caller to judge.
    """
    _check_positive(peak_flops_per_s, "the peak FLOP/s of an accelerator")
    volume = tokens_per_day(samples_per_s, seq_len)
    achieved = volume / DAY_S * flops_per_token
    peak = num_accelerators * peak_flops_per_s
    return Throughput(
        samples_per_s=samples_per_s,
        seq_len=seq_len,
        num_accelerators=num_accelerators,
        tokens_per_s=volume / DAY_S,
        tokens_per_day=volume,
        flops_per_token=flops_per_token,
        achieved_flops_per_s=achieved,
        peak_flops_per_s=peak,
        mfu=achieved / peak,
    )


def _check_positive(value: float, what: str) -> None:
    if not 1e-30 <= value <= LARGEST:  # also refuses what is not a number
        raise PlanError(f"{what[:1].upper()}{what[1:]} is {value:g}; give a positive number, at most {LARGEST:g}.")
