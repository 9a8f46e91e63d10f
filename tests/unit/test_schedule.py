"""Closed forms of pipeline schedules against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PlanError
from gnomon.plan.schedule import SCHEDULES, StageTimes, in_flight, pipeline_cost, supported

F, B, W = 1.0, 1.25, 0.75


def even(forward=F, backward_input=B, backward_weight=W):
    return StageTimes(
        forward=np.array([forward]),
        backward_input=np.array([backward_input]),
        backward_weight=np.array([backward_weight]),
    )


def cost(name, pp, num_microbatches, vpp=1, send_s=0.0, first=None, middle=None, last=None):
    stage = even()
    return pipeline_cost(
        SCHEDULES.index(name), pp, vpp, num_microbatches, first or stage, middle or stage, last or stage, send_s
    )


@pytest.mark.parametrize("name", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("pp", "m"), [(1, 3), (2, 1), (2, 5), (4, 2), (4, 16), (16, 64)])
def test_gpipe_and_1f1b_have_a_bubble_of_pp_minus_one_passes(name, pp, m):
    result = cost(name, pp, m)
    assert result.total_s == pytest.approx((m + pp - 1) * (F + B + W))
    assert result.busy_s == pytest.approx(m * (F + B + W))
    assert result.bubble_s == pytest.approx((pp - 1) * (F + B + W))
    assert result.send_s == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("vpp", [2, 3, 4])
@pytest.mark.parametrize(("pp", "m"), [(2, 2), (4, 8), (8, 64)])
def test_interleaving_divides_the_bubble_by_the_chunks(vpp, pp, m):
    assert cost("1f1b", pp, m, vpp=vpp).bubble_s == pytest.approx((pp - 1) * (F + B + W) / vpp)


def test_micro_batches_in_flight_of_gpipe_and_1f1b():
    gpipe, plain = SCHEDULES.index("gpipe"), SCHEDULES.index("1f1b")
    ranks = np.arange(4)
    assert in_flight(gpipe, 4, 1, 9, ranks).tolist() == [9, 9, 9, 9]
    assert in_flight(plain, 4, 1, 9, ranks).tolist() == [4, 3, 2, 1]
    assert in_flight(plain, 4, 1, 2, ranks).tolist() == [2, 2, 2, 1]
    # Megatron-LM: (vpp - 1) pp + 2 (pp - 1 - rank) forwards of a chunk, then one more before its first backward
    assert in_flight(plain, 4, 2, 8, ranks).tolist() == [11 / 2, 9 / 2, 7 / 2, 5 / 2]


def test_one_transfer_per_hop_shows_in_a_single_micro_batch():
    assert cost("1f1b", 4, 1, send_s=0.1).send_s == pytest.approx(6 * 0.1)
    assert cost("gpipe", 4, 1, send_s=0.1).send_s == pytest.approx(6 * 0.1)


def test_megatron_hides_no_transfer_of_plain_1f1b():
    more = cost("1f1b", 4, 33, send_s=0.1).send_s - cost("1f1b", 4, 32, send_s=0.1).send_s
    assert more == pytest.approx(2 * 0.1)  # one exchange with each neighbour of a middle rank


def test_megatron_hides_the_transfers_of_steady_interleaved_1f1b():
    few, many = (cost("1f1b", 4, m, vpp=2, send_s=0.1).send_s for m in (8, 64))
    assert few == pytest.approx(many)


def test_a_combination_that_cannot_run_is_named():
    with pytest.raises(PlanError, match=r"'1f1b' cannot run with pp=4, vpp=2 and 6 micro-batches.*multiple of pp"):
        cost("1f1b", 4, 6, vpp=2)
    assert supported(SCHEDULES.index("1f1b"), 4, [1, 2], 6).tolist() == [True, False]
