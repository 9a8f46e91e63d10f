"""The console scripts in processes of their own: flags, exit codes, and what they must not import."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.functional

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.argv = sys.argv[1:]; from gnomon.cli import scripts; getattr(scripts, {function!r})()\n"
SEE_MODULES = """
import json, sys
sys.argv = sys.argv[1:]
from gnomon.cli import scripts
try:
    getattr(scripts, {function!r})()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "numpy", "pydantic", "polars", "plotly", "networkx", "kubernetes", "boto3", "hydra", "omegaconf"}
SCRIPTS = {
    "3dtrn": ("three_d_training", "gnomon.cli.three_d_training"),
    "sps2tpd": ("sps2tpd", "gnomon.cli.convert"),
    "sps2mfu": ("sps2mfu", "gnomon.cli.convert"),
    "ckpt-summarize": ("ckpt_summarize", "gnomon.cli.ckpt"),
    "topoviz": ("topoviz", "gnomon.cli.topo"),
    "topoeval": ("topoeval", "gnomon.cli.topo"),
    "topoassign": ("topoassign", "gnomon.cli.topo"),
}


def run(script, *arguments, code=RUN, environment=None, folder=None):
    return subprocess.run(
        [sys.executable, "-c", code.format(function=SCRIPTS[script][0]), script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=environment,
        cwd=folder,
    )


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(script, option):
    module = SCRIPTS[script][1]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not there yet")
    done = run(script, option)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: {script} " in done.stdout


def test_a_script_imports_its_own_verb_only():
    done = run("sps2mfu", "-h", code=SEE_MODULES)
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert modules & HEAVY == set()
    verbs = {name for name in modules if name.startswith("gnomon.cli.") and not name.startswith("gnomon.cli._")}
    assert verbs == {"gnomon.cli.scripts", "gnomon.cli.convert"}


def test_help_is_quick(uncovered_environment):
    times = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN.format(function="sps2mfu"), "sps2mfu", "-h"],
            stdout=subprocess.DEVNULL,
            env=uncovered_environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime)
    assert min(times) <= 0.35


def test_figures_without_colours_in_a_pipe():
    arguments = ["--samples-per-sec", "100", "--seqlen", "2048", "--model-size", "70b", "--n-accelerators", "64x8"]
    done = run("sps2mfu", *arguments, "--tflops-per-accelerator", "312")
    assert (done.returncode, done.stderr) == (0, "")
    assert "53.85%" in done.stdout
    assert "\x1b" not in done.stdout
    done = run("sps2tpd", "-t", "100", "-s", "2048", "-g", "0.9", environment={**os.environ, "NO_COLOR": "1"})
    assert done.stdout == "100 samples/s of 2048 tokens at 90.00% goodput are 15.93 B tokens/day.\n"


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("3dtrn", ["examples/3dtrn/llama3_70b.yaml"]),
        ("sps2mfu", ["-s", "100", "-l", "2048", "-m", "70b", "-n", "512", "-t", "312"]),
        ("sps2tpd", ["-t", "100", "-s", "2048"]),
        ("ckpt-summarize", ["a.pt"]),
        ("topoeval", ["--file", "job.yaml", "-t", "8", "-p", "1", "-d", "2"]),
        ("topoassign", ["--file", "free.yaml", "-t", "8", "-p", "1", "-d", "2"]),
    ],
)
def test_a_terminal_that_wants_no_colour_gets_no_escape_codes(script, arguments, tmp_path):
    import torch

    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    (tmp_path / "job.yaml").write_text("nodes: [{name: a, path: [s], rank: 0}, {name: b, path: [s], rank: 1}]")
    (tmp_path / "free.yaml").write_text("nodes: [{name: a, path: [s]}, {name: b, path: [s]}]")
    arguments = [str(ROOT / word) if "/" in word else word for word in arguments]
    done = run(script, *arguments, environment={**os.environ, "FORCE_COLOR": "1"}, folder=tmp_path)
    assert ("\x1b[" in done.stdout) is (script != "sps2tpd")
    done = run(script, *arguments, environment={**os.environ, "FORCE_COLOR": "1", "NO_COLOR": "1"}, folder=tmp_path)
    assert (done.returncode, done.stderr, "\x1b" in done.stdout) == (0, "", False)


@pytest.mark.parametrize(
    ("script", "arguments", "code", "words"),
    [
        ("sps2mfu", ["-s", "1", "-l", "1", "-m", "70bananas", "-n", "1", "-t", "1"], 1, "is not a model size"),
        ("sps2mfu", ["-s", "one"], 2, "--samples-per-sec"),
        ("sps2tpd", ["-s", "2048"], 2, "--samples-per-sec"),
        ("ckpt-summarize", ["nowhere.pt"], 1, "There is no 'nowhere.pt'"),
        ("ckpt-summarize", [], 2, "PATH"),
    ],
)
def test_mistakes(script, arguments, code, words):
    done = run(script, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_is_summarised_without_torch(tmp_path):
    import torch

    torch.save({"w": torch.ones(2, 3)}, tmp_path / "a.pt")
    done = run("ckpt-summarize", str(tmp_path / "a.pt"), code=SEE_MODULES)
    assert "w  (2, 3) fp32  24 B" in done.stdout
    assert "torch" not in json.loads(done.stdout.splitlines()[-1])


def test_a_closed_pipe_is_no_failure(tmp_path):
    (tmp_path / "a.pkl").write_bytes(
        b"\x80\x02(" + b"".join(b"X\x05\x00\x00\x00%05dK\x01" % i for i in range(9000)) + b"d."
    )
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(function="ckpt_summarize"), "x", str(tmp_path / "a.pkl"), "--full"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "a.pkl" in process.stdout.readline()
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)
