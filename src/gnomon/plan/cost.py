"""What a training run takes: wall time with failures, money, energy and carbon. What is not given stays unknown."""

from __future__ import annotations

import math
import re

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gnomon.errors import PlanError
from gnomon.plan.cases import Storage
from gnomon.plan.estimate import Estimate
from gnomon.plan.goodput import Goodput, Reliability, checkpoint_bytes, goodput_of
from gnomon.plan.parameters import count_parameters
from gnomon.spec import ClusterSpec, Noun, TimeBreakdown
from gnomon.spec.catalog import load_stack

SECONDS_PER_DAY = 86400.0
JOULES_PER_KWH = 3.6e6
MOST_PER_HOUR = 1e9  # of an accelerator, in any currency; more is a slip of the pen and overflows further on
MAX_WALL_S = 1e15  # thirty million years
IDLE_TERMS = ("communication_s", "bubble_s", "data_s", "idle_s")
_SCALES = {"": 1.0, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}


class CostRates(Noun):
    """What only the user can know. Each is unknown when absent, and so is what follows from it."""

    price_per_accelerator_hour: NonNegativeFloat | None = Field(
        default=None, le=MOST_PER_HOUR, description="in any currency"
    )
    pue: float | None = Field(
        default=None, ge=1.0, le=100.0, description="power usage effectiveness of the data center"
    )
    carbon_intensity_kg_per_kwh: NonNegativeFloat | None = Field(default=None, le=1e3, description="kg CO2e per kWh")
    idle_power_fraction: float | None = Field(
        default=None, ge=0.0, le=1.0, description="power while waiting over TDP; default: TDP all the time"
    )


class TrainingCost(Noun):
    """A whole training run. `None` is unknown."""

    tokens: PositiveFloat
    num_steps: PositiveInt
    num_accelerators: PositiveInt
    step_time_s: PositiveFloat
    training_s: PositiveFloat = Field(description="without failures and checkpoints")
    checkpoint_bytes: NonNegativeFloat = Field(description="weights and optimizer states, each stored once")
    goodput: Goodput | None = Field(description="None when no MTBF is given")
    wall_s: PositiveFloat | None = Field(description="with failures and checkpoints; None when goodput is unknown")
    tokens_per_day: PositiveFloat = Field(description="with goodput where it is known")
    accelerator_hours: PositiveFloat
    cost: NonNegativeFloat | None
    power_w: PositiveFloat | None = Field(description="of one accelerator, on average")
    accelerator_energy_kwh: NonNegativeFloat | None = Field(description="of the accelerators alone")
    facility_energy_kwh: NonNegativeFloat | None = Field(description="accelerators times PUE")
    carbon_kg: NonNegativeFloat | None
    assumptions: tuple[str, ...] = ()


def training_cost(
    estimate: Estimate, tokens: float, rates: CostRates, reliability: Reliability | None = None
) -> TrainingCost:
    """Return time, money, energy and carbon of training on `tokens` tokens with steps as `estimate` predicts.

    Times, hours, money and energy include lost work when `reliability` is given. Raises PlanError for a number of
    tokens that is not positive.
    """
    if not (math.isfinite(tokens) and tokens > 0):
        raise PlanError(f"tokens is {tokens}; give a positive number of tokens to train on.")
    ranks, cluster = estimate.layout.num_ranks, estimate.cluster
    num_steps = math.ceil(tokens / estimate.workload.tokens_per_step)
    training_s = num_steps * estimate.step_time_s
    goodput = None
    if reliability is not None:
        goodput = goodput_of(reliability, ranks, math.ceil(ranks / cluster.accelerators_per_node))
    share = 1.0 if goodput is None else goodput.goodput
    if training_s / MAX_WALL_S >= share:
        raise PlanError(
            "The job fails too often to make progress: its goodput is practically zero. Use fewer accelerators, "
            "faster checkpoints, or a longer MTBF."
        )
    wall_s = training_s / share
    hours = ranks * wall_s / 3600.0
    power_w = average_power_w(cluster, estimate.time, rates.idle_power_fraction, goodput)
    energy = None if power_w is None else ranks * wall_s * power_w / JOULES_PER_KWH
    facility = None if energy is None or rates.pue is None else energy * rates.pue
    intensity, price = rates.carbon_intensity_kg_per_kwh, rates.price_per_accelerator_hour
    return TrainingCost(
        tokens=tokens,
        num_steps=num_steps,
        num_accelerators=ranks,
        step_time_s=estimate.step_time_s,
        training_s=training_s,
        checkpoint_bytes=estimate_checkpoint_bytes(estimate),
        goodput=goodput,
        wall_s=None if goodput is None else wall_s,
        tokens_per_day=num_steps * estimate.workload.tokens_per_step / wall_s * SECONDS_PER_DAY,
        accelerator_hours=hours,
        cost=None if price is None else hours * price,
        power_w=power_w,
        accelerator_energy_kwh=energy,
        facility_energy_kwh=facility,
        carbon_kg=None if facility is None or intensity is None else facility * intensity,
        assumptions=_assumptions(estimate, rates, goodput),
    )


def estimate_checkpoint_bytes(estimate: Estimate) -> float:
    """Return the bytes of one checkpoint with the storage of the estimate's software stack and precision.

    Multi-token-prediction modules are trained too.
    """
    workload = estimate.workload
    storage = Storage.of(load_stack(workload.stack), workload.precision, estimate.cluster)
    trained = estimate.num_parameters + count_parameters(estimate.model).mtp
    return checkpoint_bytes(trained, float(storage.weight_bytes[0]), float(storage.master_bytes[0]))


def average_power_w(
    cluster: ClusterSpec, time: TimeBreakdown, idle_fraction: float | None, goodput: Goodput | None = None
) -> float | None:
    """Return the average power of one accelerator, or None when its TDP is unknown.

    Without an idle power it is the TDP, as the reports of BLOOM (arXiv 2211.02001) and LLaMA (2302.13971) take it:
    an upper bound. With one it is linear in the share of time in which the device computes (Fan, Weber and Barroso,
    ISCA 2007): waiting for the network, the pipeline, data or the host, and restarting, draw idle power.
    """
    tdp = cluster.accelerator.tdp_w
    if tdp is None or idle_fraction is None:
        return tdp
    terms = time.as_dict()
    busy = 1.0 - sum(terms[term] for term in IDLE_TERMS) / time.total_s
    if goodput is not None:
        # lost work is computed like kept work; stalls and restarts are not computing
        busy *= goodput.goodput + goodput.lost_share
    return tdp * (idle_fraction + (1.0 - idle_fraction) * busy)


def parse_count(text: str) -> float:
    """Return a number from '15T', '300 B' or '1e12'; raise PlanError for anything else."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([kKmMbBtT]?)\s*", str(text))
    value = float(match[1]) * _SCALES[match[2].lower()] if match else math.nan
    if not (math.isfinite(value) and value > 0):
        raise PlanError(f"'{text}' is not a positive number of tokens. Write 15T, 300B, 1.5e12 or 2000000.")
    return value


def _assumptions(estimate: Estimate, rates: CostRates, goodput: Goodput | None) -> tuple[str, ...]:
    lines = ["hosts, network and storage draw no power here; PUE multiplies the accelerators alone"]
    if estimate.cluster.accelerator.tdp_w is None:
        lines.append(f"the TDP of '{estimate.cluster.accelerator.name}' is unknown, and so is the energy")
    elif rates.idle_power_fraction is None:
        lines.append("each accelerator draws its TDP all the time: an upper bound")
    if estimate.model.encoder is not None:
        lines.append("tokens are those of the decoder; an encoder's come on top")
    if goodput is None:
        lines.append("no MTBF given: time and cost without failures and checkpoints")
    return tuple(lines)
