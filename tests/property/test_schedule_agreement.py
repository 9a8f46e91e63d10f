"""The closed form of every pipeline schedule against the simulation of the same schedule.

The tolerances are those of docs/schedules.md.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.plan.schedule import SCHEDULES, StageTimes, in_flight, pipeline_cost, supported
from gnomon.plan.schedules import programs_of
from gnomon.plan.schedules.program import operations
from gnomon.plan.simulate import Timeline, simulate

FOLDED = ("zb-v", "v-half", "v-min")
PASSES = ("forward", "backward_input", "backward_weight")
TOLERANCE, EXACT = 0.01, 1e-9  # the latter for gpipe and plain 1f1b
OWN = {"zb-v": 0.02}  # from the first pass of a rank to its last, where ranks end apart


@st.composite
def problems(draw, schedule: str) -> dict:
    """Draw what a closed form takes: up to 16 ranks and 64 micro-batches, ends up to 60 % slower, sends up to 20 %."""
    pp = draw(st.integers(2, 16))
    vpp = draw(st.integers(1, 4)) if schedule == "1f1b" else 1
    if schedule == "dualpipe":
        pp += pp % 2
        micro_batches = 2 * draw(st.integers(pp, 32))
    elif schedule in FOLDED:
        micro_batches = draw(st.integers(2 * pp, 64))
    else:
        micro_batches = draw(st.integers(1, 64))
        if vpp > 1:
            micro_batches = -(-micro_batches // pp) * pp
    ratio, share = draw(st.floats(1.5, 3.0)), draw(st.floats(0.3, 0.5))  # of backward to forward, of W in backward
    seconds = (1.0, ratio * (1.0 - share), ratio * share)
    most = 0.2 * sum(seconds)
    if vpp > 1:
        most = min(most, 1.0 / vpp)
    return {
        "pp": pp,
        "vpp": vpp,
        "micro_batches": micro_batches,
        "seconds": seconds,
        "first": draw(st.sampled_from([0.0, 0.03, 0.1])),
        "last": draw(st.floats(0.0, 0.6)),
        "send": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])) * most,
    }


def stage(seconds: tuple[float, ...], extra: float = 0.0) -> StageTimes:
    return StageTimes(**{name: np.array([x * (1.0 + extra)]) for name, x in zip(PASSES, seconds, strict=True)})


def by_rank(schedule: str, pp: int, vpp: int, seconds: float, first: float, last: float) -> list[list[float]]:
    """Return the seconds of a stage by [rank][chunk], with the extra work of embedding and head."""
    if schedule == "dualpipe":  # a rank holds two whole stages, mirrored
        stages = [seconds * (1 + first), *[seconds] * (pp - 2), seconds * (1 + last)]
        return [[stages[rank], stages[pp - 1 - rank]] for rank in range(pp)]
    chunks = 2 if schedule in FOLDED else vpp
    rows = [[seconds / chunks] * chunks for _ in range(pp)]
    rows[0][0] += seconds * first
    rows[0 if schedule in FOLDED else -1][-1] += seconds * last
    return rows


def both(schedule: str, problem: dict):
    """Return the closed form and the simulation of a problem."""
    pp, vpp, micro_batches, first, last = (problem[k] for k in ("pp", "vpp", "micro_batches", "first", "last"))
    stages = (stage(problem["seconds"], extra) for extra in (first, 0.0, last))
    code = SCHEDULES.index(schedule)
    assert supported(code, pp, vpp, micro_batches).all()
    cost = pipeline_cost(code, pp, vpp, micro_batches, *stages, problem["send"])
    rows = [by_rank(schedule, pp, vpp, x, first, last) for x in problem["seconds"]]
    return cost, simulate(schedule, pp, vpp, micro_batches, *rows, problem["send"])


def assert_consistent(schedule: str, problem: dict, cost, run: Timeline) -> None:
    """Check what holds exactly: activations of every rank, the sum of the parts, the work of the slowest rank."""
    pp = problem["pp"]
    held = in_flight(SCHEDULES.index(schedule), pp, problem["vpp"], problem["micro_batches"], np.arange(pp))
    assert held.tolist() == list(run.in_flight)
    assert cost.busy_s[0] + cost.bubble_s[0] + cost.send_s[0] == pytest.approx(cost.total_s[0])
    work = np.zeros(pp)
    for span in run.spans:
        work[span.rank] += span.end_s - span.start_s
    assert cost.busy_s[0] == pytest.approx(work.max())


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_closed_form_and_simulation_agree(schedule, data):
    problem = data.draw(problems(schedule))
    cost, run = both(schedule, problem)
    tolerance = EXACT if schedule == "gpipe" or (schedule, problem["vpp"]) == ("1f1b", 1) else TOLERANCE
    assert cost.total_s[0] == pytest.approx(run.total_s, rel=tolerance)
    assert cost.unsynchronised_s[0] == pytest.approx(run.unsynchronised_s, rel=OWN.get(schedule, tolerance))
    assert_consistent(schedule, problem, cost, run)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("pp", "micro_batches"), [(32, 96), (64, 128)])
def test_long_pipelines_agree(schedule, pp, micro_batches):
    problem = {"pp": pp, "vpp": 1, "micro_batches": micro_batches, "first": 0.03, "last": 0.2, "send": 0.1}
    cost, run = both(schedule, {**problem, "seconds": (1.0, 1.1, 0.8)})
    assert cost.total_s[0] == pytest.approx(run.total_s, rel=TOLERANCE)


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_simulated_step_runs_every_pass_once_after_its_input(schedule, data):
    problem = data.draw(problems(schedule))
    pp, vpp, micro_batches = problem["pp"], problem["vpp"], problem["micro_batches"]
    placement, programs = programs_of(schedule, pp, vpp, micro_batches)
    _, run = both(schedule, problem)
    ends = {(s.kind, s.rank, s.chunk, s.micro_batch): s.end_s for s in run.spans}
    starts = {(s.kind, s.rank, s.chunk, s.micro_batch): s.start_s for s in run.spans}
    assert len(ends) == len(run.spans) == sum(len(list(operations(program))) for program in programs)
    forwards = [s for s in run.spans if s.kind == "F"]
    passes_per_batch = pp if schedule == "dualpipe" else pp * placement.chunks
    assert len(forwards) == micro_batches * passes_per_batch
    assert sum(s.kind == "B" for s in run.spans) == len(forwards)
    for before, after in zip(run.spans, run.spans[1:], strict=False):
        assert before.rank != after.rank or before.end_s <= after.start_s + 1e-9
    for span in run.spans:
        if span.kind == "W":
            assert ends["B", span.rank, span.chunk, span.micro_batch] <= span.start_s + 1e-9
            continue
        source = placement.upstream(span.rank, span.chunk)
        if source is None:
            continue
        wire = problem["send"] if source[0] != span.rank else 0.0
        if span.kind == "F":
            assert ends["F", *source, span.micro_batch] + wire <= span.start_s + 1e-9
        else:  # the gradient goes the other way
            assert span.end_s + wire <= starts["B", *source, span.micro_batch] + 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_batch_gives_what_its_scalars_give(seed):
    random = np.random.default_rng(seed)
    pp = random.integers(1, 9, 40)
    micro_batches = pp * random.integers(2, 8, 40)
    code = random.integers(0, len(SCHEDULES), 40)
    code = np.where(supported(code, pp, 1, micro_batches), code, 1)
    stages = [StageTimes(**{name: random.uniform(1, 2, 40) for name in PASSES}) for _ in range(3)]
    batch = pipeline_cost(code, pp, 1, micro_batches, *stages, 0.05)
    for i in range(40):
        one = [StageTimes(**{name: getattr(s, name)[i : i + 1] for name in PASSES}) for s in stages]
        alone = pipeline_cost(code[i], pp[i], 1, micro_batches[i], *one, 0.05)
        for field in ("total_s", "busy_s", "send_s", "unsynchronised_s"):
            assert getattr(batch, field)[i] == pytest.approx(getattr(alone, field)[0], rel=1e-12, abs=1e-12)
