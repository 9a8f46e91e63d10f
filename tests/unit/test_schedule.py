"""Closed forms of pipeline schedules against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from gnomon.errors import PlanError
from gnomon.plan.schedule import SCHEDULES, StageTimes, in_flight, pipeline_cost, supported
from gnomon.plan.simulate import simulate

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


def beyond_the_work(name, pp, m, vpp, passes):
    """Return the bubbles with equal stages and free sends: with ranks that meet at the update, and that do not.

    Both as the closed form has them; the simulation says the same.
    """
    stage, chunks = even(*passes), {"zb-v": 2, "v-half": 2, "v-min": 2, "dualpipe": 2}.get(name, vpp)
    found = cost(name, pp, m, vpp=vpp, first=stage, middle=stage, last=stage)
    rows = [[[x if name == "dualpipe" else x / chunks] * chunks] * pp for x in passes]
    run = simulate(name, pp, vpp, m, *rows, 0.0)
    assert found.total_s[0] == pytest.approx(run.total_s)
    assert found.unsynchronised_s[0] == pytest.approx(run.unsynchronised_s)
    return run.total_s - m * sum(passes), run.unsynchronised_s - m * sum(passes)


PASSES = [(1.0, 1.0, 1.0), (1.0, 1.25, 0.75), (1.0, 2.0, 1.0), (1.0, 0.9, 1.1), (1.0, 2.5, 1.8)]


@pytest.mark.parametrize(("f", "b", "w"), PASSES)
@pytest.mark.parametrize("pp", [2, 4, 5, 8])
def test_bubbles_of_the_table_in_the_docs(pp, f, b, w):
    def bubbles(name, vpp=1):
        return beyond_the_work(name, pp, 3 * pp, vpp, (f, b, w))

    assert bubbles("gpipe") == pytest.approx(((pp - 1) * (f + b + w),) * 2)
    assert bubbles("1f1b") == pytest.approx(((pp - 1) * (f + b + w),) * 2)
    assert bubbles("1f1b", vpp=2) == pytest.approx(((pp - 1) * (f + b + w) / 2,) * 2)
    assert bubbles("zb-h1") == pytest.approx(((pp - 1) * max(f + b - w, b, f), (pp - 1) * max(f + b - w, b)))
    most = max(f + b - 2 * w, b - f)
    assert bubbles("zb-h2") == pytest.approx(((pp - 1) * max(most, f), (pp - 1) * max(most, 0.0)), abs=1e-9)


@pytest.mark.parametrize(("f", "b", "w"), [passes for passes in PASSES if passes[2] <= passes[1]])
@pytest.mark.parametrize("pp", [2, 4, 8])
def test_bubble_of_dualpipe_in_the_docs(pp, f, b, w):
    expected = (pp / 2 - 1) * ((f + b + w) + (b + w) - 3 * w)
    assert beyond_the_work("dualpipe", pp, 4 * pp, 1, (f, b, w)) == pytest.approx((expected, expected), abs=1e-9)


@pytest.mark.parametrize("more", [0, 5])
@pytest.mark.parametrize("pp", [2, 3, 4, 5, 6, 8, 9, 16])
def test_bubbles_of_the_folded_schedules_in_the_docs(pp, more):
    def bubbles(name):
        return beyond_the_work(name, pp, 2 * pp + more, 1, (1.0, 1.0, 1.0))

    assert bubbles("zb-v") == pytest.approx(((pp - 1) / 2, 0.0), abs=1e-9)
    assert bubbles("v-half") == pytest.approx((3 * (pp - 1) / 2 - (pp % 2) / 2,) * 2)
    assert bubbles("v-min") == pytest.approx((2 * pp - 5 / 2 + (pp % 3 == 0),) * 2)


def test_the_bubble_of_v_min_grows_where_passes_differ():
    assert beyond_the_work("v-min", 4, 16, 1, (1.0, 2.0, 1.0))[0] == pytest.approx(38.5)
    assert beyond_the_work("v-min", 4, 32, 1, (1.0, 2.0, 1.0))[0] == pytest.approx(70.5)


def alive(name, pp, m, vpp=1):
    """Return what the ranks hold, by the closed form and by the simulation."""
    held = in_flight(SCHEDULES.index(name), pp, vpp, m, np.arange(pp)).tolist()
    row = [[1.0] * (2 if name in ("zb-v", "v-half", "v-min", "dualpipe") else vpp)] * pp
    assert held == list(simulate(name, pp, vpp, m, row, row, row, 0.0).in_flight)
    return held


def test_what_is_alive_is_what_the_table_in_the_docs_says():
    for pp in (4, 8, 16):
        m, ranks = 3 * pp, range(pp)
        assert alive("gpipe", pp, m) == [m] * pp
        assert alive("1f1b", pp, m) == [pp - r for r in ranks]
        assert alive("1f1b", pp, m, vpp=2) == [(2 * (pp - 1 - r) + pp + 1) / 2 for r in ranks]
        assert alive("zb-h1", pp, m) == [pp] * pp
        assert alive("zb-h2", pp, m) == [2 * pp - 1] * pp
        assert alive("zb-v", pp, m) == [pp] * pp
        assert alive("v-half", pp, m) == [pp // 2 + 1] * pp
        assert alive("dualpipe", pp, m + m % 2) == [pp + 1] * pp
    assert alive("zb-h1", 8, 3) == [3] * 8
    assert alive("v-min", 4, 12) == [2] * 4
    assert alive("v-min", 16, 48) == [6] * 16
    assert alive("v-min", 8, 24) == [3.5, 4, 4, 3, 4, 4, 3, 4]
