"""From a configuration to a pipeline that ran."""

import sys
from pathlib import Path

import pytest

from gnomon.component import Component
from gnomon.errors import ConfigError, PipelineError, RunDirectoryError
from gnomon.pipeline import Pipeline
from gnomon.pipeline._failure import StepFailedError
from gnomon.pipeline.job import build, compose_jobs, run_job
from gnomon.pipeline.run import create_run, open_run, refuse_existing, require

STEPS = """\
from gnomon.component import Component
from gnomon.pipeline.run import create_run

class Make(Component):
    def __init__(self, run_dir, size):
        self.run_dir, self.size = run_dir, size

    def execute(self):
        create_run(self.run_dir, "own: settings")
        return self.size

class Double(Component):
    def execute(self, size=5):
        return 2 * size
"""
CONFIG = """\
run_dir: runs/a
size: 3
copy_of_run_dir: ${run_dir}
training_pipeline:
  _target_: gnomon.pipeline.Pipeline
  steps:
    make: {_target_: my_steps.Make, run_dir: "${run_dir}", size: "${size}"}
    double: {_target_: my_steps.Double}
other:
  nested: {_target_: gnomon.pipeline.Pipeline, steps: [{_target_: my_steps.Double}]}
  single: {_target_: my_steps.Double}
  noun: {_target_: gnomon.spec.Layout}
  empty: {steps: []}
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    (tmp_path / "my_steps.py").write_text(STEPS)
    (tmp_path / "work.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("my_steps", None)


def job(*overrides):
    return compose_jobs(Path.cwd(), "work", overrides)[0]


def test_a_job_saves_its_resolved_configuration(project):
    result = run_job(job("size=4"))
    assert result.output == 8
    assert result.run_dir == "runs/a"
    assert list(result.timings) == ["make", "double"]
    saved = (project / "runs/a/config.yaml").read_text()
    assert "copy_of_run_dir: runs/a\n" in saved
    assert "size: 4\n" in saved
    assert "${" not in saved


def test_a_step_used_alone_saves_its_own_settings(project):
    create_run("alone", "own: settings")
    assert (project / "alone/config.yaml").read_text() == "own: settings"


def test_chosen_steps(project):
    assert run_job(job(), steps="double").output == 10
    assert not (project / "runs").exists()
    with pytest.raises(PipelineError, match="Did you mean 'double'"):
        run_job(job(), steps="doubel")
    with pytest.raises(PipelineError, match="needs a Pipeline, but the configuration has a Double"):
        run_job(job(), pipe_key="other.single", steps="double")


def test_pipe_keys(project):
    assert isinstance(build(job().config), Pipeline)
    assert run_job(job(), pipe_key="other.nested").output == 10
    assert isinstance(build(job().config, "other.single"), Component)
    assert run_job(job(), pipe_key="other.single").timings == {}


@pytest.mark.parametrize(
    ("pipe_key", "error", "words"),
    [
        ("trainig_pipeline", ConfigError, "Did you mean 'training_pipeline'"),
        ("other.neste", ConfigError, "has no 'other.neste'"),
        ("size", ConfigError, "'size' has no _target_"),
        ("other.empty", ConfigError, "'other.empty' has no _target_"),
        ("other.noun", PipelineError, "makes a Layout, which is not a component"),
    ],
)
def test_wrong_pipe_keys(pipe_key, error, words):
    with pytest.raises(error, match=words):
        build(job().config, pipe_key)


def test_no_pipeline_at_all():
    with pytest.raises(ConfigError, match="neither training_pipeline nor pipeline"):
        build(job("~training_pipeline").config)


def test_a_step_of_a_nested_pipeline_that_fails_is_named_with_where_it_is(project):
    (project / "work.yaml").write_text(
        "pipeline: {_target_: gnomon.pipeline.Pipeline, steps: {outer: {_target_: gnomon.pipeline.Pipeline, "
        "steps: {make: {_target_: my_steps.Make, run_dir: a, size: x}, add: {_target_: my_steps.Add}}}}}"
    )
    (project / "my_steps.py").write_text(STEPS + "class Add(Component):\n    def execute(self, x):\n        x + 1\n")
    with pytest.raises(StepFailedError) as caught:
        run_job(job())
    assert str(caught.value) == (
        "Step 'outer.add' (my_steps.Add) failed: TypeError: can only concatenate str (not \"int\") to str, "
        "at my_steps.py:17."
    )
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_multirun_gives_each_job_its_own_run_directory(project):
    jobs = compose_jobs(project, "work", ["size=1,2", "run_dir='runs/${gnomon.now:%f}'"], multirun=True)
    first, second = (each.config for each in jobs)
    assert (first.size, second.size) == (1, 2)
    assert first.run_dir.endswith("-0")
    assert second.run_dir == first.run_dir[:-1] + "1"
    assert first.copy_of_run_dir == first.run_dir
    assert [run_job(each).output for each in jobs] == [2, 4]
    assert len(list((project / "runs").iterdir())) == 2


def test_a_wrong_job_of_a_multirun_shows_before_any_runs(project):
    with pytest.raises(ConfigError, match="siz"):
        compose_jobs(project, "work", ["size=1,2", "siz=3"], multirun=True)
    with pytest.raises(ConfigError, match="--multirun"):
        compose_jobs(project, "work", ["size=1,2"])


def test_run_directories_of_steps(project):
    with pytest.raises(RunDirectoryError, match="Step Plan reads the run directory 'nowhere', which does not exist"):
        open_run("nowhere", "Plan")
    run = create_run("somewhere", "a: 1")
    assert open_run("somewhere", "Plan").path == run.path
    with pytest.raises(RunDirectoryError, match=r"Step Plan needs 'somewhere/hardware.yaml'"):
        require(run.hardware, "Plan")
    with pytest.raises(RunDirectoryError, match=r"Step Plan would overwrite 'somewhere/config.yaml'"):
        refuse_existing(run.config, "Plan")
    with pytest.raises(RunDirectoryError, match="exists already"):
        create_run("somewhere", "a: 1")
