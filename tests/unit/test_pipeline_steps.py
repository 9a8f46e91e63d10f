"""The ready steps, with a machine, a training and a profiler that are fakes."""

import json
import os

import pytest

from gnomon.errors import (
    CalibrationError,
    ConfigError,
    LaunchError,
    LayoutError,
    PlanError,
    RunDirectoryError,
    SpecError,
)
from gnomon.pipeline.steps import Calibrate, Compare, Plan, Profile, Report, Train
from gnomon.plan.estimate import Estimate
from gnomon.report.comparison import Comparison
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import HardwareProfile, Layout, Workload
from gnomon.train.config import GPTTrainingConfig
from pipeline_fixtures import constant_profile
from plan_fixtures import TINY
from report_fixtures import fake_measurement

WORKLOAD = {"seq_len": 64, "global_batch": 8, "micro_batch": 4}
TRAINING = {"num_steps": 20, "learning_rate": 0.01}


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Replace everything that is slow; return the jobs that would have been started."""
    monkeypatch.chdir(tmp_path)
    started = []

    def fake_run_ranks(job):
        started.append(job)
        settings = GPTTrainingConfig.load(job.arguments[0])
        rows = [{"step": step, "tokens": step, "loss": 5 / step, "lr": 0.1, "grad_norm": 1.0, "step_time_s": 0.1,
                 "tokens_per_s": 1.0, "mfu": None} for step in range(1, settings.num_steps + 1)]  # fmt: skip
        run = RunDirectory(settings.run_dir)
        run.keep_metrics(rows)
        settings.save(run.path / "training.json")

    def fake_measure(run):
        settings = GPTTrainingConfig.load(run.path / "training.json")
        measurement = fake_measurement(model=settings.model, layout=settings.layout, workload=settings.workload)
        measurement.save(run.measurement)
        return measurement

    monkeypatch.setattr("gnomon.profile.calibrate.calibrate", lambda **settings: constant_profile())
    monkeypatch.setattr("gnomon.launch.local.run_ranks", fake_run_ranks)
    monkeypatch.setattr("gnomon.profile.measure.measure", fake_measure)
    return started


def test_the_steps_feed_each_other(jobs, capsys):
    profile = Calibrate("run", ranks=[2], budget_s=30).execute()
    run = RunDirectory.open("run")
    assert HardwareProfile.load(run.hardware) == profile
    estimate = Plan("run", WORKLOAD, {"dp": 2}, model=TINY).execute(profile)
    assert Estimate.load(run.estimate) == estimate
    assert estimate.layout == Layout(dp=2)
    assert "tiny" in capsys.readouterr().out
    trained = Train("run", TRAINING).execute(estimate)
    settings = GPTTrainingConfig.load(run.path / "training.json")
    assert (settings.model, settings.layout, settings.workload) == (TINY, Layout(dp=2), Workload(**WORKLOAD))
    assert settings.run_dir == "run"
    assert settings.peak_flops == profile.accelerator.peak_flops["fp32"]
    assert settings.learning_rate == 0.01
    assert (jobs[0].module, jobs[0].ranks, jobs[0].log_dir) == ("gnomon.train.worker", 2, run.logs)
    comparison = Compare("run").execute(Profile("run").execute(trained))
    assert Comparison.load(run.comparison) == comparison
    page = Report("run").execute(comparison)
    assert page == run.report_html
    assert page.is_file()


def test_without_input_each_step_reads_the_run_directory(jobs):
    Calibrate("run").execute()
    assert Plan("run", WORKLOAD, model=TINY.to_mapping()).execute().model == TINY
    Train("run", TRAINING).execute()
    Profile("run").execute()
    comparison = Compare("run").execute()
    assert Compare("run").execute() == comparison
    assert Report("run").execute() == Report("run").execute()


def test_a_run_is_never_overwritten(jobs):
    Calibrate("run").execute()
    with pytest.raises(RunDirectoryError, match="exists already"):
        Calibrate("run").execute()
    Plan("run", WORKLOAD, model=TINY).execute()
    with pytest.raises(RunDirectoryError, match=r"Step Plan would overwrite 'run/estimate.json'"):
        Plan("run", WORKLOAD, model=TINY).execute()
    Train("run", TRAINING).execute()
    with pytest.raises(RunDirectoryError, match=r"Step Train would overwrite 'run/metrics.jsonl'"):
        Train("run", TRAINING).execute()
    Train("run", {**TRAINING, "resume": True}).execute()
    Profile("run").execute()
    with pytest.raises(RunDirectoryError, match=r"Step Profile would overwrite 'run/measurement.json'"):
        Profile("run").execute()


def test_a_taken_run_directory_is_found_before_anything_is_measured(jobs, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("kept")
    monkeypatch.setattr("gnomon.profile.calibrate.calibrate", lambda **settings: pytest.fail("measured too early"))
    with pytest.raises(RunDirectoryError, match="exists already"):
        Calibrate("run").execute()
    assert (tmp_path / "run" / "precious").read_text() == "kept"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda: Plan("run", WORKLOAD, model=TINY), "Step Plan needs 'run/hardware.yaml'"),
        (lambda: Train("run", TRAINING), "Step Train needs 'run/estimate.json'"),
        (lambda: Compare("run"), "Step Compare needs 'run/estimate.json'"),
    ],
)
def test_a_step_that_comes_too_early_says_what_is_missing(jobs, step, words):
    with pytest.raises(RunDirectoryError, match="'run', which does not exist"):
        step().execute()
    RunDirectory.create("run", "a: 1\n", {})
    with pytest.raises(RunDirectoryError, match=words):
        step().execute()


def test_without_a_model_the_largest_that_fits_is_taken(jobs, capsys):
    def parameters(budget_s):
        Calibrate(f"run-{budget_s}").execute()
        step = Plan(f"run-{budget_s}", WORKLOAD, num_steps=100, train_budget_s=budget_s)
        estimate = step.execute()
        assert 100 * estimate.step_time_s <= budget_s
        return estimate.num_parameters

    assert parameters(100.0) > parameters(3.0)
    Calibrate("run").execute()
    smallest = Plan("run", WORKLOAD, num_steps=100, train_budget_s=1e-6).execute()
    assert smallest.model.name == "gpt-2x128"
    assert "Even gpt-2x128, the smallest model, needs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Train("run", {**TRAINING, "learnin_rate": 1}), ConfigError, "Did you mean 'learning_rate'"),
        (lambda: Train("run", {**TRAINING, "model": {}}), ConfigError, "training.model follows from the estimate"),
        (lambda: Train("run", {**TRAINING, "num_steps": 0}), SpecError, "'num_steps' is 0"),
        (lambda: Train("run", {}), SpecError, "missing key 'num_steps'"),
        (lambda: Plan("run", {**WORKLOAD, "seq_le": 1}), SpecError, "Did you mean 'seq_len'"),
        (lambda: Plan("run", WORKLOAD, {"dp": 3}), LayoutError, "does not divide"),
        (lambda: Plan("run", WORKLOAD, {"dpp": 2}), SpecError, "unknown key 'dpp'"),
        (lambda: Plan("run", WORKLOAD, model={"hidden": 3}), SpecError, "unknown key 'hidden'"),
    ],
)
def test_wrong_settings_show_when_the_pipeline_is_built(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_metrics_of_the_fake_are_read(jobs):
    Calibrate("run").execute()
    Plan("run", WORKLOAD, model=TINY).execute()
    run = Train("run", TRAINING).execute()
    assert len(run.read_metrics()) == 20
    assert json.loads(run.environment.read_text())["schema_version"] == 1


def test_what_can_be_known_before_calibrating_is_said_before(jobs):
    with pytest.raises(CalibrationError, match="too short"):
        Calibrate("run", budget_s=float("nan"))
    with pytest.raises(CalibrationError, match="at least one number of ranks"):
        Calibrate("run", ranks=[0])
    for budget_s in (float("nan"), -1, "abc", None):
        with pytest.raises(ConfigError, match="train_budget_s="):
            Plan("run", WORKLOAD, train_budget_s=budget_s)
    with pytest.raises(LayoutError, match="zero_stage=1 can be planned"):
        Plan("run", WORKLOAD, {"dp": 2, "zero_stage": 1})
    with pytest.raises(PlanError, match="multi-token-prediction"):
        Plan("run", WORKLOAD, model="deepseek-v3")
    with pytest.raises(LaunchError, match="is not a port"):
        Train("run", TRAINING, port="abc")


def test_a_calibration_that_fails_leaves_no_run_directory(jobs, monkeypatch, tmp_path):
    def fail(**settings):
        raise CalibrationError("no")

    monkeypatch.setattr("gnomon.profile.calibrate.calibrate", fail)
    with pytest.raises(CalibrationError):
        Calibrate("run").execute()
    assert not (tmp_path / "run").exists()


def test_a_model_that_does_not_fit_is_not_trained(jobs):
    profile = Calibrate("run").execute()
    estimate = Plan("run", WORKLOAD, model=TINY).execute(profile)
    too_large = estimate.model_copy(update={"fits": False})
    with pytest.raises(LayoutError, match="Choose a smaller model"):
        Train("run", TRAINING).execute(too_large)
    assert jobs == []


def test_a_measurement_that_the_run_has_outgrown_is_kept_under_another_name(jobs):
    estimate = Plan("run", WORKLOAD, model=TINY).execute(Calibrate("run").execute())
    run = Train("run", TRAINING).execute(estimate)
    Profile("run").execute(run)
    before = run.measurement.read_bytes()
    with pytest.raises(RunDirectoryError, match="would overwrite"):
        Profile("run").execute(run)
    os.utime(run.metrics, (2e9, 2e9))  # training went on
    Profile("run").execute(run)
    assert (run.path / "measurement-1.json").read_bytes() == before
    assert run.measurement.exists()
