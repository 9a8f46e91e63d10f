"""Runs pipelines of use cases as their users do: `gnomon exec-pipeline` in the folder of the use case."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

GNOMON = [sys.executable, "-c", "from gnomon.cli.main import main; main()"]
USE_CASES = Path(__file__).parents[2] / "use_cases"


@pytest.fixture(scope="module", autouse=True)
def _ranks_without_coverage(uncovered_children: None) -> None:
    """Train on several ranks as fast as a user does; what they run is covered elsewhere."""


@pytest.fixture
def exec_pipeline(uncovered_environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return what runs `gnomon exec-pipeline --config config.yaml ARGUMENTS` in the folder of a use case."""

    def run(use_case: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*GNOMON, "exec-pipeline", "--config", "config.yaml", *arguments],
            cwd=USE_CASES / use_case, env={**uncovered_environment, "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr + done.stdout
        return done

    return run


def read_rows(run_dir: Path) -> list[dict]:
    """Return the rows of metrics.jsonl."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def last_row() -> Callable[[Path, str], dict]:
    """Return what finds the last row of a run that has a figure."""
    return lambda run_dir, name: next(row for row in reversed(read_rows(run_dir)) if name in row)


@pytest.fixture
def import_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], ModuleType]]:
    """Give what imports a module from the folder of a use case, and forget it: other folders have the same names."""

    def load(use_case: str, name: str) -> ModuleType:
        monkeypatch.syspath_prepend(USE_CASES / use_case)
        return importlib.import_module(name)

    yield load
    for name, module in list(sys.modules.items()):
        if USE_CASES in Path(getattr(module, "__file__", None) or "/").parents:
            del sys.modules[name]
