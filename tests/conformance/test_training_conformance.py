"""Every strategy trains the same model to the same numbers, through a kill -9 and on another number of ranks."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gnomon.errors import RankFailedError
from strategy_cases import (
    CASES,
    COMPARED_STEP,
    LAST_STEP,
    TOLERANCE,
    Case,
    assemble,
    launch,
    read_parts,
    relative_difference,
    write_task,
)
from training_conformance_worker import train_task

pytestmark = [pytest.mark.torch_dist, pytest.mark.usefixtures("uncovered_children")]

TESTS = Path(__file__).parents[1]
FIGURES = "GNOMON_STRATEGY_FIGURES"  # a file to which the measured figures are added, for docs/strategies.md


@pytest.fixture(autouse=True)
def _ranks_find_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory):
    """Return the state of one process after some step, by model; each model is trained once."""
    folder = tmp_path_factory.mktemp("alone")
    trained: set[str] = set()

    def state_of(case: Case, step: int) -> dict[str, torch.Tensor]:
        name = f"model-{len(case.model)}"
        if name not in trained:
            train_task(write_task(replace(CASES["single"], model=case.model), folder, f"run-{name}", name))
            trained.add(name)
        return assemble(read_parts(folder / name, step, 1))

    return state_of


@pytest.mark.parametrize("name", CASES)
def test_training_is_the_same_in_every_way(tmp_path, alone, name):
    case = CASES[name]
    if case.missing:
        pytest.skip(case.missing)
    reference = alone(case, COMPARED_STEP)
    start = time.perf_counter()
    with pytest.raises(RankFailedError, match="SIGKILL"):
        launch(case, write_task(case, tmp_path, "run", "killed", kill_at=LAST_STEP))
    assemble(read_parts(tmp_path / "killed", COMPARED_STEP, case.ranks, "weights-"))  # all copies are equal
    replicated = assemble(read_parts(tmp_path / "killed", COMPARED_STEP, case.ranks))
    difference = relative_difference(replicated, reference, "model.")
    assert difference <= TOLERANCE

    launch(case, write_task(case, tmp_path, "run", "resumed", resume=True))
    before = assemble(read_parts(tmp_path / "killed", LAST_STEP, case.ranks))
    after = assemble(read_parts(tmp_path / "resumed", LAST_STEP, case.ranks))
    resumed = relative_difference(after, before)
    assert resumed <= case.resume_tolerance

    others = [None, *([case.reload] if case.reload else [])]  # None: one process, this one
    for other in others:
        ranks = other.ranks if other else 1
        record = f"loaded-{ranks}"
        if other:
            launch(other, write_task(other, tmp_path, "run", record, resume=True))
        else:
            train_task(write_task(replace(CASES["single"], model=case.model), tmp_path, "run", record, resume=True))
        loaded = assemble(read_parts(tmp_path / record, LAST_STEP, ranks))
        assert loaded.keys() == after.keys()
        for key, value in after.items():
            assert torch.equal(loaded[key], value), f"{key} loaded on {ranks} ranks"
    _report(name, difference, resumed, [other.ranks if other else 1 for other in others], time.perf_counter() - start)


def _report(name: str, difference: float, resumed: float, loaded_on: list[int], seconds: float) -> None:
    """Print the figures of a case, and add them to the file that GNOMON_STRATEGY_FIGURES names."""
    row = {"difference": difference, "resumed": resumed, "loaded_on": loaded_on, "seconds": round(seconds, 1)}
    print(f"{name}: {row}")
    if path := os.environ.get(FIGURES):
        file = Path(path)
        rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**rows, name: row}, indent=2) + "\n", encoding="utf-8")
