"""Pipelines as the user starts them: the whole loop on this machine, and Ctrl-C in the middle of one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline_fixtures import constant_profile

GNOMON = [sys.executable, "-c", "from gnomon.cli.main import main; main()"]
TINY_RUN = [
    "model={num_layers: 2, hidden_size: 64, num_heads: 2, vocab_size: 256, max_seq_len: 64}",
    "workload.seq_len=64",
    "num_steps=12",
    "training.warmup_steps=2",
    "training.log_every=1",
    "training.eval_every=6",
    "training.checkpoint_every=6",
    "run_dir=run",
]
SLEEPER = """\
import time
from gnomon.component import Component

class Sleep(Component):
    def execute(self):
        print("asleep", flush=True)
        time.sleep(60)
"""
TWO_STEPS = """\
import pathlib, sys, time
import numpy as np
from gnomon.component import Component

class Make(Component):
    def execute(self) -> np.ndarray:
        print("make", file=sys.stderr, flush=True)
        return np.arange(4)

class Wait(Component):
    def execute(self, data: np.ndarray) -> int:
        print("wait", file=sys.stderr, flush=True)
        time.sleep(0 if pathlib.Path("go").exists() else 60)
        return int(data.sum())
"""


@pytest.mark.torch_dist
def test_the_loop_from_plan_to_report(tmp_path):
    """The demo on two ranks without its calibration, which has tests of its own: a made run directory stands in."""
    from gnomon.runtime.run_directory import RunDirectory

    run = RunDirectory.create(tmp_path / "run", "run_dir: run\n", {})
    constant_profile().save(run.hardware)
    done = subprocess.run(
        [*GNOMON, "exec-pipeline", "--steps", "plan:", "ranks=2", *TINY_RUN],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == "run/report.html"
    assert [line.split()[1] for line in done.stderr.splitlines()] == ["plan", "train", "profile", "compare", "report"]
    losses = [row["loss"] for row in run.read_metrics() if "loss" in row]
    assert losses[-1] < losses[0]
    assert json.loads(run.estimate.read_text())["layout"]["dp"] == 2
    assert json.loads(run.measurement.read_text())["step_time_s"] > 0
    assert all(term["measured"] is not None for term in json.loads(run.comparison.read_text())["headline"])
    page = run.report_html.read_text()
    assert "step time" in page
    again = subprocess.run(
        [*GNOMON, "exec-pipeline", "--steps", "report", "--json", *TINY_RUN],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert json.loads(again.stdout)["result"] == "run/report.html"


def test_ctrl_c_is_one_message(tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    (tmp_path / "sleep.yaml").write_text(
        "pipeline: {_target_: gnomon.pipeline.Pipeline, steps: [{_target_: sleeper.Sleep}]}\n"
    )
    process = subprocess.Popen(
        [*GNOMON, "exec-pipeline", "--config", "sleep.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # tests that a shell started in the background inherit an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - started < 10
    assert process.returncode == 130
    assert err == "error: Interrupted.\n"


def test_a_killed_pipeline_goes_on_where_it_was(tmp_path):
    """kill -9 in the second step: the first is not run again, and the second begins anew."""
    (tmp_path / "two.py").write_text(TWO_STEPS)
    (tmp_path / "two.yaml").write_text(
        "pipeline: {_target_: gnomon.pipeline.Pipeline, cache: true, cache_dir: kept,"
        " steps: {make: {_target_: two.Make}, wait: {_target_: two.Wait}}}\n"
    )
    command = [*GNOMON, "exec-pipeline", "--config", "two.yaml", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert [process.stderr.readline().split()[0] for _ in range(3)] == ["make", "✓", "wait"]
    process.kill()
    process.communicate(timeout=30)
    (tmp_path / "go").touch()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert [line.split()[:2] for line in done.stderr.splitlines()] == [["✓", "make"], ["wait"], ["✓", "wait"]]
    document = json.loads(done.stdout)
    assert document["cached"] == ["make"]
    assert document["result"] == 6


def test_the_packaged_demo_is_complete():
    """Every step of the demo can be built from its configuration, in the order of the loop."""
    from gnomon.pipeline.job import build, compose_jobs

    (job,) = compose_jobs(None, "demo", [])
    assert list(build(job.config).steps) == ["calibrate", "plan", "train", "profile", "compare", "report"]
    assert Path(job.config.run_dir).parent == Path("runs")
