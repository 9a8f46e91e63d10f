"""What the program costs before it does anything, and what it must not import for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan" / "gpt2-dgx-a100.yaml"
RUN = "import sys; from gnomon.cli.main import main; sys.argv = ['gnomon', *sys.argv[1:]]\n"
SEE_MODULES = "try:\n    main()\nexcept SystemExit:\n    pass\nimport json; print(json.dumps(sorted(sys.modules)))\n"
HEAVY = {"torch", "numpy", "hydra", "omegaconf", "plotly", "psutil", "yaml"}


def modules(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN + SEE_MODULES, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


def user_cpu_s(environment: dict[str, str], *arguments: str) -> float:
    """Return the least user CPU time of three runs: the load of the machine only ever adds to it."""
    times = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN + "main()", *arguments], stdout=subprocess.DEVNULL, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime)
    return min(times)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["plan", "--help"], ["exec-pipeline", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    loaded = modules(*arguments)
    assert loaded & HEAVY == set()
    assert not any(name.startswith("gnomon.spec") for name in loaded)


@pytest.mark.parametrize(
    "arguments",
    [["plan", str(EXAMPLE), "--json"], ["plan", str(EXAMPLE), "--output", "."], ["exec-pipeline", "--cfg", "job"]],
)
def test_verbs_that_only_plan_never_import_torch(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    loaded = modules(*arguments)
    assert "omegaconf" in loaded
    assert loaded & {"torch", "plotly", "psutil"} == set()


def test_help_is_quick(uncovered_environment):
    assert user_cpu_s(uncovered_environment, "--help") <= 0.35


def test_plan_is_quick(uncovered_environment):
    assert user_cpu_s(uncovered_environment, "plan", str(EXAMPLE), "--json") <= 0.8
