"""Goodput: the share of wall time that moves training forward when accelerators fail.

Failures of the job are a Poisson process. A segment is `interval_s` of training and `stall_s` in which a checkpoint
stops it. A failure throws away what no finished checkpoint holds, costs `downtime_s` (detection, replacement,
scheduling) and then `recovery_s` (start, load), in which it may fail again.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gnomon.errors import PlanError
from gnomon.plan.arrays import Array
from gnomon.spec import Noun
from gnomon.units import format_seconds

MAX_EXPONENT = 700.0  # exp of more overflows a double


class Reliability(Noun):
    """How often the machine fails, and what a checkpoint and a restart cost."""

    accelerator_mtbf_s: PositiveFloat | None = Field(
        default=None, description="mean time between failures of one accelerator and what belongs to it alone"
    )
    node_mtbf_s: PositiveFloat | None = Field(
        default=None, description="of one node, without its accelerators: host, network adapters, disks"
    )
    checkpoint_s: NonNegativeFloat = Field(description="from the snapshot until it can be restarted from")
    stall_s: NonNegativeFloat | None = Field(
        default=None, description="time that one checkpoint stops training; default: checkpoint_s (synchronous)"
    )
    downtime_s: NonNegativeFloat = Field(default=0.0, description="from a failure until the job starts again")
    recovery_s: NonNegativeFloat = Field(description="from the start of the job until it trains again")
    interval_s: PositiveFloat | None = Field(
        default=None, description="training between two checkpoints; default: Daly's optimum"
    )


class Goodput(Noun):
    """Shares of wall time, which add up to one, and what they follow from."""

    mtbf_s: PositiveFloat = Field(description="mean time between failures of the whole job")
    interval_s: PositiveFloat = Field(description="training between two checkpoints")
    optimal_interval_s: NonNegativeFloat = Field(description="Daly's optimum for the stall of a checkpoint")
    young_interval_s: NonNegativeFloat = Field(description="Young's first-order optimum")
    stall_s: NonNegativeFloat
    goodput: float = Field(ge=0.0, le=1.0, description="share of wall time that is kept training")
    checkpoint_share: NonNegativeFloat
    restart_share: NonNegativeFloat
    lost_share: NonNegativeFloat = Field(description="training and checkpoints that a failure threw away")
    failures_per_day: NonNegativeFloat


def job_mtbf_s(
    num_accelerators: int, num_nodes: int, accelerator_mtbf_s: float | None, node_mtbf_s: float | None
) -> float:
    """Return the mean time between failures of a job that stops when any of its parts does.

    Rates of independent exponential failures add up. Raises PlanError when both parts are unknown.
    """
    if accelerator_mtbf_s is None and node_mtbf_s is None:
        raise PlanError("Neither the MTBF of an accelerator nor of a node is given. Give at least one of them.")
    rate = sum(n / mtbf for n, mtbf in ((num_accelerators, accelerator_mtbf_s), (num_nodes, node_mtbf_s)) if mtbf)
    return 1.0 / rate


def young_interval_s(stall_s: ArrayLike, mtbf_s: ArrayLike) -> Array:
    """Return sqrt(2 d M), the training between checkpoints that wastes least to first order.

    Young, Communications of the ACM 17 (1974) 530.
    """
    return np.sqrt(2.0 * np.asarray(stall_s, dtype=np.float64) * np.asarray(mtbf_s, dtype=np.float64))


def daly_interval_s(stall_s: ArrayLike, mtbf_s: ArrayLike) -> Array:
    """Return the higher-order optimum of training between checkpoints.

    sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + (d / 2M) / 9) - d  for d < 2M, else M (Daly, Future Generation Computer
    Systems 22 (2006) 303, equation 37).
    """
    stall, mtbf = np.asarray(stall_s, dtype=np.float64), np.asarray(mtbf_s, dtype=np.float64)
    x = stall / (2.0 * mtbf)
    series = np.sqrt(2.0 * stall * mtbf) * (1.0 + np.sqrt(x) / 3.0 + x / 9.0) - stall
    return np.where(stall < 2.0 * mtbf, series, mtbf)


def expected_goodput(
    interval_s: ArrayLike,
    stall_s: ArrayLike,
    mtbf_s: ArrayLike,
    recovery_s: ArrayLike,
    downtime_s: ArrayLike = 0.0,
    write_s: ArrayLike = 0.0,
) -> Array:
    """Return the expected share of wall time that is kept training.

    t / ((M + D) e^((R + w) / M) (e^((t + d) / M) - 1)), exact for exponential failures that also strike checkpoints
    and recovery, but not downtime; with D = w = 0 it is Daly's complete model (2006). `write_s` (w) is how long after
    its stall an asynchronous checkpoint cannot be restarted from yet: a failure sets training back to the last
    finished one, so that the first segment after it must last w longer. Requires w <= t + d: one checkpoint is
    written at a time.
    """
    t, d, m = (np.asarray(x, dtype=np.float64) for x in (interval_s, stall_s, mtbf_s))
    r, down, w = (np.asarray(x, dtype=np.float64) for x in (recovery_s, downtime_s, write_s))
    # e^((R + w) / M) (e^((t + d) / M) - 1), kept finite: a goodput of zero
    grown = np.exp(np.minimum((r + w) / m, MAX_EXPONENT / 2)) * np.expm1(np.minimum((t + d) / m, MAX_EXPONENT / 2))
    return np.asarray(t / ((m + down) * grown), dtype=np.float64)


def goodput_of(reliability: Reliability, num_accelerators: PositiveInt, num_nodes: PositiveInt) -> Goodput:
    """Return the goodput of a job; raise PlanError when its checkpoints cannot keep up with their interval."""
    r = reliability
    mtbf = job_mtbf_s(num_accelerators, num_nodes, r.accelerator_mtbf_s, r.node_mtbf_s)
    stall = r.checkpoint_s if r.stall_s is None else r.stall_s
    if stall > r.checkpoint_s:
        raise PlanError(
            f"A checkpoint stops training for {format_seconds(stall)} but is done after "
            f"{format_seconds(r.checkpoint_s)}. Set a stall of at most {format_seconds(r.checkpoint_s)}."
        )
    write = r.checkpoint_s - stall
    shortest = max(write - stall, 0.0)
    optimal = max(float(daly_interval_s(stall, mtbf)), shortest)
    interval = optimal if r.interval_s is None else r.interval_s
    if interval <= 0.0:
        raise PlanError(
            "A checkpoint that takes no time has no best interval. Give the time or the bandwidth of a checkpoint, "
            "or the interval."
        )
    if interval < shortest:
        raise PlanError(
            f"An interval of {format_seconds(interval)} starts a checkpoint before the last one is written "
            f"({format_seconds(r.checkpoint_s)}). Set the interval to at least {format_seconds(shortest)}."
        )
    share = float(expected_goodput(interval, stall, mtbf, r.recovery_s, r.downtime_s, write))
    failures_per_s = 1.0 / (mtbf + r.downtime_s)
    restart = failures_per_s * (r.downtime_s + mtbf * -math.expm1(-r.recovery_s / mtbf))
    checkpoint = share * stall / interval
    return Goodput(
        mtbf_s=mtbf,
        interval_s=interval,
        optimal_interval_s=optimal,
        young_interval_s=float(young_interval_s(stall, mtbf)),
        stall_s=stall,
        goodput=min(share, 1.0),
        checkpoint_share=checkpoint,
        restart_share=restart,
        lost_share=max(1.0 - share - checkpoint - restart, 0.0),
        failures_per_day=86400.0 * failures_per_s,
    )


def checkpoint_bytes(num_parameters: int, weight_bytes: float, optimizer_bytes: float) -> float:
    """Return the bytes of one checkpoint: weights and optimizer states of all parameters, each stored once."""
    return num_parameters * (weight_bytes + optimizer_bytes)
