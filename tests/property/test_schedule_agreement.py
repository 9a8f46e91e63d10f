"""The closed form of every pipeline schedule against the simulation of the same schedule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.plan.schedule import SCHEDULES, StageTimes, in_flight, pipeline_cost, supported
from gnomon.plan.simulate import simulate

FOLDED = ("zb-v", "v-half", "v-min")
# the worst disagreement of the schedules that docs/schedules.md calls approximate; all others agree to 1 %
TOLERANCE = {"v-half": 0.03, "v-min": 0.06}


def stage(forward: float, backward: float, weight: float, extra: float = 0.0) -> StageTimes:
    times = (np.array([x * (1.0 + extra)]) for x in (forward, backward, weight))
    return StageTimes(**dict(zip(("forward", "backward_input", "backward_weight"), times, strict=True)))


def by_rank(schedule: str, pp: int, vpp: int, seconds: float, first: float, last: float) -> list[list[float]]:
    """Return the seconds of a stage by [rank][chunk], with the extra work of embedding and head."""
    chunks = 2 if schedule in FOLDED else vpp
    rows = [[seconds / chunks] * chunks for _ in range(pp)]
    rows[0][0] += seconds * first
    rows[0 if schedule in FOLDED else -1][-1] += seconds * last
    return rows


problems = st.fixed_dictionaries(
    {
        "pp": st.integers(2, 16),
        "micro_batches": st.integers(1, 64),
        "vpp": st.integers(1, 4),
        "backward": st.floats(0.8, 1.5),
        "weight": st.floats(0.7, 1.0),
        "first": st.sampled_from([0.0, 0.1]),
        "last": st.sampled_from([0.0, 0.3, 0.6]),
        "send": st.sampled_from([0.0, 0.05, 0.2]),
    }
)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "zb-h1", "zb-h2"])
@settings(max_examples=60, deadline=None)
@given(problem=problems)
def test_straight_schedules_agree_to_one_percent_and_exactly_in_flight(schedule, problem):
    pp, vpp, micro_batches = problem["pp"], problem["vpp"] if schedule == "1f1b" else 1, problem["micro_batches"]
    if vpp > 1:
        micro_batches = -(-micro_batches // pp) * pp
    code = SCHEDULES.index(schedule)
    assert supported(code, pp, vpp, micro_batches).all()
    send = problem["send"] / vpp
    passes = (1.0, problem["backward"], problem["weight"])
    cost = pipeline_cost(
        code,
        pp,
        vpp,
        micro_batches,
        stage(*passes, problem["first"]),
        stage(*passes),
        stage(*passes, problem["last"]),
        send,
    )
    rows = [by_rank(schedule, pp, vpp, x, problem["first"], problem["last"]) for x in passes]
    run = simulate(schedule, pp, vpp, micro_batches, *rows, send)
    assert cost.total_s[0] == pytest.approx(run.total_s, rel=0.014 if schedule == "zb-h2" else 0.01)
    held = [float(np.ravel(in_flight(code, pp, vpp, micro_batches, rank))[0]) for rank in range(pp)]
    assert held == pytest.approx(run.in_flight)


@pytest.mark.parametrize("schedule", FOLDED)
@settings(max_examples=40, deadline=None)
@given(pp=st.integers(2, 12), more=st.integers(0, 24), backward=st.floats(1.0, 1.3), weight=st.floats(0.8, 1.0))
def test_folded_schedules_agree_as_the_page_says(schedule, pp, more, backward, weight):
    code, micro_batches = SCHEDULES.index(schedule), 2 * pp + more
    even = stage(1.0, backward, weight)
    cost = pipeline_cost(code, pp, 1, micro_batches, even, even, even, 0.0)
    rows = [by_rank(schedule, pp, 1, x, 0.0, 0.0) for x in (1.0, backward, weight)]
    run = simulate(schedule, pp, 1, micro_batches, *rows, 0.0)
    assert cost.total_s[0] == pytest.approx(run.total_s, rel=TOLERANCE.get(schedule, 0.01))
    assert float(np.ravel(in_flight(code, pp, 1, micro_batches, 0))[0]) == pytest.approx(max(run.in_flight))


@pytest.mark.parametrize(("pp", "micro_batches"), [(2, 4), (4, 8), (8, 16), (8, 64), (16, 32)])
@pytest.mark.parametrize("passes", [(1.0, 1.0, 1.0), (1.0, 1.2, 0.8)])
def test_dualpipe_agrees_and_has_the_bubble_of_its_paper(pp, micro_batches, passes):
    code = SCHEDULES.index("dualpipe")
    even = stage(*passes)
    total = pipeline_cost(code, pp, 1, micro_batches, even, even, even, 0.0).total_s[0]
    run = simulate("dualpipe", pp, 1, micro_batches, *([[x, x]] * pp for x in passes), 0.0)
    assert total == pytest.approx(run.total_s, rel=0.01)
    forward, backward, weight = passes
    both = backward + weight
    bubble = (pp / 2 - 1) * (forward + both + both - 3 * weight)
    assert total == pytest.approx(micro_batches * sum(passes) + bubble, rel=0.01)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
def test_even_stages_take_the_textbook_time(schedule):
    even = stage(1.0, 1.0, 1.0)
    total = pipeline_cost(SCHEDULES.index(schedule), 8, 1, 32, even, even, even, 0.0).total_s[0]
    assert total == pytest.approx((32 + 8 - 1) * 3.0)


def test_interleaving_divides_the_bubble():
    even = stage(1.0, 1.0, 1.0)
    cost = pipeline_cost(SCHEDULES.index("1f1b"), 8, 4, 32, even, even, even, 0.0)
    assert cost.bubble_s[0] == pytest.approx((8 - 1) * 3.0 / 4)


def test_zero_bubble_h1_saves_the_weight_gradients_of_the_ramp():
    even = stage(1.0, 1.0, 1.0)
    cost = pipeline_cost(SCHEDULES.index("zb-h1"), 8, 1, 32, even, even, even, 0.0)
    assert cost.bubble_s[0] == pytest.approx((8 - 1) * (1.0 + 1.0 + 1.0 - 2 * 1.0))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_batch_gives_what_its_scalars_give(seed):
    random = np.random.default_rng(seed)
    pp = random.integers(1, 9, 40)
    micro_batches = pp * random.integers(2, 8, 40)
    code = random.integers(0, len(SCHEDULES), 40)
    code = np.where(supported(code, pp, 1, micro_batches), code, 1)
    stages = [
        StageTimes(
            forward=random.uniform(1, 2, 40),
            backward_input=random.uniform(1, 2, 40),
            backward_weight=random.uniform(0.5, 1, 40),
        )
        for _ in range(3)
    ]
    batch = pipeline_cost(code, pp, 1, micro_batches, *stages, 0.05)
    for i in range(40):
        one = [
            StageTimes(**{n: getattr(s, n)[i : i + 1] for n in ("forward", "backward_input", "backward_weight")})
            for s in stages
        ]
        alone = pipeline_cost(code[i], pp[i], 1, micro_batches[i], *one, 0.05)
        assert batch.total_s[i] == pytest.approx(alone.total_s[0], rel=1e-12)
        assert batch.in_flight_first[i] == alone.in_flight_first[0]
