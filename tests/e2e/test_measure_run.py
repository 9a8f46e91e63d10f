"""`measure` on a finished run of one rank and of two: it starts real ranks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gnomon.errors import DataError
from gnomon.profile.measure import measure
from gnomon.profile.measurement import Measurement
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.train.config import GPTTrainingConfig

STEP_TIME_S = 0.05
MODEL = ModelSpec(num_layers=2, hidden_size=64, num_heads=2, vocab_size=256, max_seq_len=32)


def finished_run(tmp_path, dp, recompute="none"):
    """Return a run directory as a training run leaves it, without spending the time to train."""
    text = tmp_path / "text"
    text.mkdir()
    (text / "text.txt").write_text("the shadow of the gnomon tells the hour\n" * 500)
    run = RunDirectory.create(tmp_path / "run", "{}", {})
    config = GPTTrainingConfig(
        run_dir=str(run.path),
        num_steps=10,
        device="cpu",
        model=MODEL,
        layout=Layout(dp=dp, recompute=recompute),
        workload=Workload(seq_len=32, global_batch=4, micro_batch=2),
        data={"root": str(text), "pattern": "*.txt"},
        peak_flops=1e10,
    )
    run.write_text("training.json", config.to_json())
    run.keep_metrics({"step": step, "loss": 5.0 - 0.1 * step, "step_time_s": STEP_TIME_S} for step in range(1, 11))
    return run


def check(run, measurement, ranks):
    before = run.read_metrics()
    assert Measurement.load(run.measurement) == measurement
    assert run.read_metrics() == before
    assert not run.checkpoints.exists()
    assert len(before) == 10
    assert measurement.step_time_s == pytest.approx(STEP_TIME_S)
    assert measurement.time.total_s == pytest.approx(measurement.step_time_s, rel=1e-12)
    assert measurement.memory.total_bytes == measurement.peak_memory_bytes > measurement.peak_tensor_bytes > 0
    assert measurement.mfu == pytest.approx(measurement.model_flops / STEP_TIME_S / (1e10 * ranks))
    assert measurement.num_steps == 7
    assert {path.name for path in run.traces.iterdir()} == {
        f"rank-{rank}{suffix}" for rank in range(ranks) for suffix in (".json.gz", ".summary.json")
    }


@pytest.mark.functional
def test_one_rank(tmp_path):
    run = finished_run(tmp_path, 1)
    measurement = measure(run, threads_per_rank=1)
    check(run, measurement, 1)
    assert measurement.time.matmul_s > 0
    assert measurement.time.communication_s == 0
    assert measurement.time.recompute_s == 0


@pytest.mark.functional
def test_what_is_computed_again_is_told_from_the_forward_pass(tmp_path):
    run = finished_run(tmp_path, 1, recompute="full")
    measurement = measure(run, threads_per_rank=1)
    check(run, measurement, 1)
    again = [operator.calls for operator in measurement.operators if operator.term == "recompute_s"]
    assert again == [measurement.model.num_layers * measurement.workload.accumulation(1)]
    once = measurement.time.matmul_s + measurement.time.attention_s + measurement.time.elementwise_s
    assert measurement.time.recompute_s > 0.1 * once


@pytest.mark.torch_dist
def test_two_ranks_communicate(tmp_path):
    run = finished_run(tmp_path, 2)
    measurement = measure(run, threads_per_rank=1)
    check(run, measurement, 2)
    assert measurement.time.communication_s > 0
    assert measurement.memory.communication_bytes == 0  # the gradients live in the buckets
    assert any(operator.term == "communication_s" for operator in measurement.operators)


@pytest.mark.functional
def test_a_failing_rank_leaves_no_measurement(tmp_path):
    run = finished_run(tmp_path, 1)
    (tmp_path / "text" / "text.txt").unlink()
    with pytest.raises(DataError):
        measure(run)
    assert not run.measurement.exists()


def test_measure_does_not_import_torch():
    code = "import sys, gnomon.profile.measure; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
