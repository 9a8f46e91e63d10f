"""Plans of measured machines stay what they were when predictions were compared with measurements (benchmarks/loop.md).

The figures were frozen from the engine that knew single devices and data parallelism only.
"""

import json
from pathlib import Path

import pytest

from closed_loop_fixtures import problems
from gnomon.plan.planner import plan

FROZEN = json.loads((Path(__file__).parents[1] / "fixtures" / "closed_loop.json").read_text())
PROBLEMS = {name: problem for name, *problem in problems()}


def test_every_frozen_plan_is_made():
    assert set(PROBLEMS) == set(FROZEN)
    assert len(FROZEN) == 120


@pytest.mark.parametrize("name", FROZEN)
def test_terms_are_what_they_were(name):
    estimate, frozen = plan(*PROBLEMS[name]), FROZEN[name]
    assert {k: v for k, v in estimate.time.as_dict().items() if v} == pytest.approx(frozen["time"], rel=1e-9)
    assert {k: v for k, v in estimate.memory.as_dict().items() if v} == pytest.approx(frozen["memory"], rel=1e-9)
    assert estimate.model_flops == pytest.approx(frozen["model_flops"], rel=1e-12)
    assert estimate.step_time_s == pytest.approx(sum(frozen["time"].values()), rel=1e-9)
