"""Every strategy trains the same model to the same numbers, through a kill -9 and on another number of ranks."""

import json
import os
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
    launch_all,
    read_parts,
    relative_difference,
    write_task,
)
from training_conformance_worker import train_task

pytestmark = [pytest.mark.torch_dist, pytest.mark.usefixtures("uncovered_children"), pytest.mark.timeout(1200)]

TESTS = Path(__file__).parents[1]
FIGURES = "GNOMON_STRATEGY_FIGURES"  # a file to which the measured figures are added, for docs/strategies.md


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


@pytest.fixture(scope="module")
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of each case: killed, then resumed, then loaded by other ranks, many in the same ranks."""
    tests = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    names = dict.fromkeys(str(item.callspec.params["name"]) for item in tests)
    cases = {name: CASES[name] for name in names if not CASES[name].missing}
    folders = {name: tmp_path_factory.mktemp("case") for name in cases}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])))
        shared = []
        for name, case in cases.items():
            task = write_task(case, folders[name], "run", "killed", kill_at=LAST_STEP, kill_all=not case.is_alone)
            if case.is_alone:
                with pytest.raises(RankFailedError, match="SIGKILL"):
                    launch(case, task)
            else:
                shared.append((case, task))
        launch_all(shared)
        assert not [folder for folder in folders.values() if list(folder.glob(f"run/checkpoints/*{LAST_STEP}*"))]
        launch_all([(case, _later(case, folders[name], "resumed")) for name, case in cases.items()])
        launch_all(
            [(case.reload, _later(case.reload, folders[name], "loaded")) for name, case in cases.items() if case.reload]
        )
    return folders


def _later(case: Case, folder: Path, record: str) -> Path:
    return write_task(case, folder, "run", record, resume=True)


@pytest.mark.parametrize("name", CASES)
def test_training_is_the_same_in_every_way(folders, alone, name):
    case = CASES[name]
    if case.missing:
        pytest.skip(case.missing)
    folder = folders[name]
    assemble(read_parts(folder / "killed", COMPARED_STEP, case.ranks, "weights-"))  # all copies are equal
    replicated = assemble(read_parts(folder / "killed", COMPARED_STEP, case.ranks))
    difference = relative_difference(replicated, alone(case, COMPARED_STEP), "model.")
    assert difference <= TOLERANCE

    before = assemble(read_parts(folder / "killed", LAST_STEP, case.ranks))
    after = assemble(read_parts(folder / "resumed", LAST_STEP, case.ranks))
    resumed = relative_difference(after, before)
    assert resumed <= case.resume_tolerance

    train_task(_later(replace(CASES["single"], model=case.model), folder, "loaded-1"))  # by one process, this one
    records = {"loaded-1": 1, **({"loaded": case.reload.ranks} if case.reload else {})}
    for record, ranks in records.items():
        loaded = assemble(read_parts(folder / record, LAST_STEP, ranks))
        assert loaded.keys() == after.keys()
        for key, value in after.items():
            assert torch.equal(loaded[key], value), f"{key} loaded on {ranks} ranks"
    _report(name, difference, resumed, list(records.values()))


def _report(name: str, difference: float, resumed: float, loaded_on: list[int]) -> None:
    """Print the figures of a case, and add them to the file that GNOMON_STRATEGY_FIGURES names."""
    row = {"difference": difference, "resumed": resumed, "loaded_on": loaded_on}
    print(f"{name}: {row}")
    if path := os.environ.get(FIGURES):
        file = Path(path)
        rows = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**rows, name: row}, indent=2) + "\n", encoding="utf-8")
