"""The arithmetic of a measurement, with profiles and metrics made by hand."""

from __future__ import annotations

import json

import pytest

from gnomon.errors import ReportError, RunDirectoryError, SpecError
from gnomon.plan.flops import model_flops
from gnomon.profile.measure import join, measure, read_settings, steady_steps
from gnomon.profile.measurement import Measurement, OperatorMeasurement
from gnomon.profile.rank_profile import RankProfile
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import Layout, ModelSpec, Workload
from gnomon.train.config import GPTTrainingConfig

MODEL = ModelSpec(num_layers=2, hidden_size=32, num_heads=2, vocab_size=256, max_seq_len=64)


def settings(**fields):
    return GPTTrainingConfig(
        run_dir="run",
        num_steps=20,
        model=MODEL,
        layout=Layout(dp=2),
        workload=Workload(seq_len=16, global_batch=8, micro_batch=4),
        **fields,
    )


def profile(rank=0, **fields):
    values = {
        "device": "a CPU",
        "num_profiled_steps": 4,
        "profiled_step_time_s": 0.3,
        "terms": {"matmul_s": 0.1, "elementwise_s": 0.05},
        "operators": (OperatorMeasurement(name="aten::mm", term="matmul_s", calls=24, time_s=0.1),),
        "weights_bytes": 100,
        "gradients_bytes": 100,
        "optimizer_bytes": 200,
        "communication_bytes": 10,
        "peak_tensor_bytes": 600,
        "baseline_memory_bytes": 50,
        "peak_memory_bytes": 1000,
        "versions": {"torch": "2"},
    }
    return RankProfile(rank=rank, **{**values, **fields})


def row(step, step_time_s=0.2, loss=1.0):
    return {"step": step, "tokens": step, "loss": loss, "step_time_s": step_time_s}


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", "{}", {})


def write_rows(run, rows):
    run.keep_metrics(rows)
    return run


def test_terms_add_up_to_the_unprofiled_step_and_mfu_uses_all_ranks(run):
    write_rows(run, [row(step) for step in range(1, 21)])
    found = join(settings(peak_flops=1e9), steady_steps(run), [profile(), profile(1)])
    assert found.step_time_s == pytest.approx(0.2)
    assert found.time.matmul_s == pytest.approx(0.1)
    assert found.time.idle_s == pytest.approx(0.05)
    assert found.time.total_s == pytest.approx(found.step_time_s)
    assert found.tokens_per_s == pytest.approx(8 * 16 / 0.2)
    assert found.model_flops == model_flops(MODEL, settings().workload)
    assert found.mfu == pytest.approx(found.model_flops / 0.2 / 2e9)
    assert (found.num_profiled_steps, found.profiled_step_time_s) == (4, 0.3)
    assert Measurement.from_mapping(json.loads(found.to_json())) == found


def test_operators_are_scaled_with_their_terms(run):
    write_rows(run, [row(step, 0.075) for step in range(1, 21)])
    found = join(settings(), steady_steps(run), [profile()])
    assert found.time.idle_s == pytest.approx(0, abs=1e-12)
    assert found.operators[0].time_s == pytest.approx(found.time.matmul_s) == pytest.approx(0.05)
    assert found.mfu is None


def test_memory_comes_from_the_rank_with_the_highest_peak_and_adds_up(run):
    write_rows(run, [row(step) for step in range(1, 21)])
    found = join(settings(), steady_steps(run), [profile(), profile(1, peak_memory_bytes=1200, peak_tensor_bytes=700)])
    assert found.memory.activations_bytes == 700 - 410
    assert found.memory.framework_bytes == 500
    assert found.peak_memory_bytes == found.memory.total_bytes == 1200
    assert found.memory.tensor_bytes == found.peak_tensor_bytes == 700


def test_framework_memory_is_never_negative():
    assert profile(peak_memory_bytes=500).memory.framework_bytes == 0
    assert profile(peak_tensor_bytes=300).memory.activations_bytes == 0


def test_warm_up_rows_are_dropped_and_rows_count_for_the_steps_that_they_cover(run):
    rows = [row(1, 9.0, loss=4.0), row(3, 8.0), row(7, 0.2), row(8, 0.4, loss=2.0), {"step": 8, "eval_loss": 3.0}]
    steady = steady_steps(write_rows(run, rows))
    assert steady.step_times_s == (0.2, 0.2, 0.2, 0.2, 0.4)
    assert (steady.loss_first, steady.loss_last) == (4.0, 2.0)
    assert steady.quantile_s(0.5) == 0.2
    assert steady.quantile_s(0.9) == pytest.approx(0.2 + 0.6 * 0.2)
    assert steady.quantile_s(1.0) == 0.4


def test_losses_are_means_over_a_twentieth_of_the_rows(run):
    rows = [row(step, loss=float(step)) for step in range(1, 41)]
    steady = steady_steps(write_rows(run, rows))
    assert (steady.loss_first, steady.loss_last) == (1.5, 39.5)


def test_a_run_that_is_too_short_or_logged_nothing_is_an_error(run):
    with pytest.raises(ReportError, match="no training steps"):
        steady_steps(run)
    with pytest.raises(ReportError, match=r"4 steps after the warm-up \(7 in all\).*needs 5"):
        steady_steps(write_rows(run, [row(step) for step in range(1, 8)]))
    with pytest.raises(ReportError, match=r"0 steps after the warm-up \(50 in all\)"):
        steady_steps(write_rows(run, [row(50)]))


def test_a_run_without_settings_is_an_error_before_anything_starts(run):
    with pytest.raises(RunDirectoryError, match=r"has no training\.json"):
        measure(run)
    run.write_text("training.json", "{}")
    with pytest.raises(SpecError, match="missing key 'model'"):
        measure(run)
    run.write_text("training.json", settings().to_json())
    assert read_settings(run) == settings()
    with pytest.raises(ReportError, match="no training steps"):
        measure(run)
    assert not run.measurement.exists()
