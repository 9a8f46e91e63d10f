"""Goodput against hand-computed and published values, and against a simulation of failures."""

import math

import numpy as np
import pytest

from gnomon.errors import PlanError, SpecError
from gnomon.plan.goodput import (
    Reliability,
    checkpoint_bytes,
    daly_interval_s,
    expected_goodput,
    goodput_of,
    job_mtbf_s,
    young_interval_s,
)

HOUR, DAY = 3600.0, 86400.0


def test_failure_rates_add_up():
    assert job_mtbf_s(1000, 125, 1e6, None) == pytest.approx(1000.0)
    assert job_mtbf_s(1000, 100, 1e6, 1e5) == pytest.approx(1.0 / (1000 / 1e6 + 100 / 1e5))
    with pytest.raises(PlanError, match="Neither the MTBF of an accelerator nor of a node"):
        job_mtbf_s(8, 1, None, None)


def test_young_and_daly_by_hand():
    # d = 5 min, M = 24 h: sqrt(2 x 300 x 86400) = 7200 s
    assert young_interval_s(300.0, DAY) == pytest.approx(7200.0)
    # x = 300 / 172800; sqrt(x) / 3 = 0.0138889, x / 9 = 0.0001929: 7200 x 1.0140818 - 300
    assert daly_interval_s(300.0, DAY) == pytest.approx(7001.389, abs=0.01)
    assert daly_interval_s(3 * DAY, DAY) == DAY


@pytest.mark.parametrize(("stall_s", "mtbf_s"), [(5.0, 3 * HOUR), (300.0, DAY), (600.0, 2 * HOUR)])
def test_daly_finds_the_best_interval(stall_s, mtbf_s):
    intervals = np.geomspace(1.0, 10 * mtbf_s, 200_001)
    goodputs = expected_goodput(intervals, stall_s, mtbf_s, 120.0, 60.0)
    best = intervals[np.argmax(goodputs)]
    assert daly_interval_s(stall_s, mtbf_s) == pytest.approx(best, rel=2e-3)


def test_expected_goodput_by_hand():
    # M = 1000, t = 90, d = 10, R = 20, D = 30: 90 / (1030 e^0.02 (e^0.1 - 1))
    expected = 90.0 / (1030.0 * 1.0202013 * 0.1051709)
    assert expected_goodput(90.0, 10.0, 1000.0, 20.0, 30.0) == pytest.approx(expected, rel=1e-6)
    assert expected_goodput(90.0, 10.0, 1e12, 20.0, 30.0) == pytest.approx(0.9, rel=1e-6)
    assert expected_goodput(1e9, 10.0, 1.0, 20.0) == pytest.approx(0.0, abs=1e-100)


def simulate(interval_s, stall_s, mtbf_s, recovery_s, downtime_s, write_s, segments, seed):
    """Return goodput of one simulated job: failures strike training, stalls and recovery, not downtime."""
    random = np.random.default_rng(seed)
    clock, durable, next_failure = 0.0, 0, random.exponential(mtbf_s)
    cycle = interval_s + stall_s
    position = 0.0  # seconds of training and stalls since the start, as if nothing had failed
    while durable < segments:
        # the snapshot at the end of segment k can be restarted from `write_s` later
        target = (durable + 1) * cycle + write_s
        if clock + target - position <= next_failure:
            clock += target - position
            position, durable = target, durable + 1
            continue
        clock = next_failure
        while True:
            clock += downtime_s
            next_failure = clock + random.exponential(mtbf_s)
            if clock + recovery_s <= next_failure:
                clock += recovery_s
                break
            clock = next_failure
        position = durable * cycle
    return segments * interval_s / clock


@pytest.mark.parametrize(
    ("interval_s", "stall_s", "mtbf_s", "recovery_s", "downtime_s", "write_s"),
    [
        (600.0, 30.0, 3 * HOUR, 120.0, 300.0, 0.0),
        (1800.0, 200.0, 1 * HOUR, 300.0, 600.0, 0.0),
        (600.0, 5.0, 2 * HOUR, 120.0, 300.0, 400.0),
        (300.0, 2.0, 0.5 * HOUR, 200.0, 0.0, 300.0),
    ],
)
def test_simulated_failures_agree(interval_s, stall_s, mtbf_s, recovery_s, downtime_s, write_s):
    case = (interval_s, stall_s, mtbf_s, recovery_s, downtime_s, write_s)
    simulated = simulate(*case, segments=40_000, seed=7)
    assert expected_goodput(*case) == pytest.approx(simulated, rel=0.02)


def test_shares_add_up_and_match_the_simulation():
    known = Reliability(node_mtbf_s=100 * HOUR, checkpoint_s=60.0, recovery_s=300.0, downtime_s=120.0)
    found = goodput_of(known, 256, 32)
    assert found.mtbf_s == pytest.approx(100 * HOUR / 32)
    total = found.goodput + found.checkpoint_share + found.restart_share + found.lost_share
    assert total == pytest.approx(1.0)
    assert found.failures_per_day == pytest.approx(DAY / (found.mtbf_s + 120.0))
    # to first order a failure loses half a segment and its checkpoint
    half_s = (found.interval_s + 60.0) / 2.0
    assert found.lost_share == pytest.approx(half_s / found.mtbf_s, rel=0.1)


def test_llama_3_keeps_more_than_nine_tenths():
    """419 unexpected interruptions of 16,384 GPUs in 54 days; storage of 2 TB/s (arXiv 2407.21783, section 3.3)."""
    accelerator_mtbf_s = 54 * DAY * 16384 / 419
    assert accelerator_mtbf_s / HOUR == pytest.approx(50_677, rel=1e-3)
    size = checkpoint_bytes(405_853_388_800, 2.0, 12.0)
    assert size == pytest.approx(5.68e12, rel=1e-3)
    known = Reliability(
        accelerator_mtbf_s=accelerator_mtbf_s, checkpoint_s=size / 2e12, recovery_s=300.0, downtime_s=120.0
    )
    found = goodput_of(known, 16384, 2048)
    assert found.mtbf_s / HOUR == pytest.approx(3.093, rel=1e-3)
    assert found.young_interval_s == pytest.approx(math.sqrt(2 * 2.841 * 11135), rel=1e-3)
    assert 0.90 < found.goodput < 0.95


def test_an_asynchronous_checkpoint_wastes_less():
    common = {"accelerator_mtbf_s": 5e7, "checkpoint_s": 300.0, "recovery_s": 120.0}
    waits = goodput_of(Reliability(**common), 4096, 512)
    hides = goodput_of(Reliability(**common, stall_s=5.0), 4096, 512)
    assert hides.goodput > waits.goodput
    assert hides.interval_s >= 300.0 - 2 * 5.0  # one checkpoint is written at a time
    assert hides.interval_s < waits.interval_s


def test_goodput_refuses_what_cannot_be():
    common = {"accelerator_mtbf_s": 1e7, "recovery_s": 60.0}
    with pytest.raises(PlanError, match="starts a checkpoint before the last one is written"):
        goodput_of(Reliability(**common, checkpoint_s=600.0, stall_s=1.0, interval_s=60.0), 8, 1)
    with pytest.raises(PlanError, match="Set a stall of at most"):
        goodput_of(Reliability(**common, checkpoint_s=6.0, stall_s=10.0), 8, 1)
    with pytest.raises(PlanError, match="no best interval"):
        goodput_of(Reliability(**common, checkpoint_s=0.0), 8, 1)
    with pytest.raises(SpecError, match="accelerator_mtbf_s"):
        Reliability.from_mapping({"accelerator_mtbf_s": -1, "checkpoint_s": 1, "recovery_s": 1})
