"""The command line: what it prints where, what it writes, and how it fails."""

import json
import re
import sys
from pathlib import Path

import pytest

from gnomon import __version__
from gnomon.cli import _output, main
from gnomon.errors import ConfigError, GnomonError
from pipeline_fixtures import constant_profile
from plan_fixtures import TINY
from report_fixtures import fake_measurement

STEPS = """\
import os
import sys
from pathlib import Path
from gnomon.component import Component

class Say(Component):
    def __init__(self, word, result=None, run_dir=None):
        self.word, self.result = word, result

    def execute(self, *inputs):
        print(self.word)
        os.system(f"echo child {self.word}")
        return Path(self.result) if self.result else self.word

class Fail(Component):
    def __init__(self, kind):
        self.kind = kind

    def execute(self, *inputs):
        if self.kind == "interrupt":
            raise KeyboardInterrupt
        if self.kind == "leave":
            sys.exit(3)
        raise ZeroDivisionError("really")
"""
PIPELINE = """\
run_dir: runs/a
word: hello
kind: mistake
pipeline:
  _target_: gnomon.pipeline.Pipeline
  steps:
    say: {_target_: words.Say, word: "${word}"}
    path: {_target_: words.Say, word: "bye", result: "the/end"}
failing: {_target_: words.Fail, kind: "${kind}"}
hostile: {_target_: os.system, command: touch hostile}
"""
PLAN = {
    "model": TINY.to_mapping(),
    "cluster": "hardware.yaml",
    "workload": {"seq_len": 64, "global_batch": 8, "precision": "fp32"},
}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "words.py").write_text(STEPS)
    (tmp_path / "work.yaml").write_text(PIPELINE)
    (tmp_path / "plan.yaml").write_text(json.dumps(PLAN))  # JSON is YAML
    constant_profile().save(tmp_path / "hardware.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("GNOMON_LOG_LEVEL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    yield tmp_path
    sys.modules.pop("words", None)


@pytest.fixture
def gnomon(monkeypatch, capfd):
    """Run the program; return its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gnomon", *arguments])
        code = 0
        try:
            main.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capfd.readouterr()

    return run


def failure(result: tuple[int, str, str]) -> str:
    code, _, err = result
    assert code == 1
    assert "Traceback" not in err
    assert err.count("error: ") == 1
    return err


def test_help_lists_every_verb(gnomon):
    code, out, _ = gnomon("--help")
    assert code == 0
    for verb in ("plan", "calibrate", "exec-pipeline", "profile", "compare", "report"):
        assert f" {verb} " in out


@pytest.mark.parametrize("verb", ["plan estimate", "calibrate", "exec-pipeline", "profile train", "compare", "report"])
def test_every_verb_has_help_and_json(gnomon, verb):
    code, out, _ = gnomon(*verb.split(), "--help")
    assert code == 0
    assert "--json" in out


def test_version(gnomon):
    assert gnomon("--version")[:2] == (0, f"gnomon {__version__}\n")


def test_usage_errors(gnomon):
    code, _, err = gnomon("plann")
    assert code == 2
    assert "plan" in err
    assert gnomon("plan")[0] == 2
    assert gnomon("plan", "plan.yaml", "--jsn")[0] == 2


# plan


def test_plan_prints_a_table_and_writes_the_estimate(gnomon, here):
    code, out, _ = gnomon("plan", "plan.yaml")
    assert code == 0
    assert "tiny" in out
    assert "step time" in out
    assert "where it comes from" in out
    assert out.splitlines()[-1] == "Estimate written to estimate.json"
    assert json.loads((here / "estimate.json").read_text())["model"]["name"] == "tiny"


def test_plan_never_overwrites(gnomon, here):
    (here / "estimate.json").write_text("mine")
    _, out, _ = gnomon("plan", "plan.yaml")
    assert "Estimate written to estimate-2.json (estimate.json exists and was kept; --force overwrites it)" in out
    _, out, _ = gnomon("plan", "plan.yaml")
    assert "written to estimate-3.json" in out
    assert (here / "estimate.json").read_text() == "mine"
    gnomon("plan", "plan.yaml", "--force")
    assert (here / "estimate.json").read_text() != "mine"


def test_plan_as_json(gnomon, here):
    code, out, err = gnomon("plan", "plan.yaml", "--json", "workload.global_batch=4")
    assert (code, err) == (0, "")
    estimate = json.loads(out)
    assert estimate["workload"]["global_batch"] == 4
    assert not (here / "estimate.json").exists()
    _, out, err = gnomon("plan", "plan.yaml", "--json", "--output", "deep/folder")
    assert json.loads(out)["step_time_s"] > 0
    assert err == "Estimate written to deep/folder/estimate.json\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.yaml"], "'nope.yaml' not found"),
        (["plan.yml"], "'plan.yml' not found (looked for"),
        (["work.yaml"], "unknown key 'run_dir'"),
        (["plan.yaml", "modl=gpt2"], "Did you mean 'model'?"),
        (["plan.yaml", "model=gpt-2"], "Did you mean 'gpt2'?"),
        (["plan.yaml", "model=no/config.json"], "File not found: 'no/config.json'"),
        (["plan.yaml", "cluster=dgx-a10"], "Did you mean 'dgx-a100'?"),
        (["plan.yaml", "workload.seq_len=0"], "'seq_len' is 0"),
        (["plan.yaml", "workload.seq_len=4096"], "exceeds the 128 learned positions"),
        (["plan.yaml", "+layout={dp: 3}"], "measured with [1, 2] rank(s) on the node, not 3"),
        (["plan.yaml", "+layout={dp: 2, ep: 2}"], "has none"),
        (["plan.yaml", "model=???"], "No value for 'model'"),
        (["plan.yaml", "~workload"], "The plan has no 'workload'"),
    ],
)
def test_plan_says_what_is_wrong(gnomon, here, arguments, words):
    assert words in failure(gnomon("plan", *arguments))
    assert not (here / "estimate.json").exists()


# exec-pipeline


def test_the_configuration_can_be_printed(gnomon, here):
    code, out, _ = gnomon("exec-pipeline", "-c", "work.yaml", "--cfg", "job", "word=x")
    assert code == 0
    assert "word: x\n" in out
    assert "${" not in out
    assert json.loads(gnomon("exec-pipeline", "-cn", "work", "--cfg", "job", "--json")[1])["word"] == "hello"
    _, out, _ = gnomon("exec-pipeline", "-cp", ".", "-cn", "work", "--cfg", "job", "-m", "word=a,b")
    assert out.count("---\n") == 1
    assert "run_dir: runs/a-1" in out
    assert not (here / "runs").exists()


def test_a_pipeline_runs_and_ends_with_its_path(gnomon):
    code, out, err = gnomon("exec-pipeline", "--config", "work.yaml")
    assert code == 0
    assert out.splitlines() == ["hello", "child hello", "bye", "child bye", "the/end"]
    assert [line.split()[:2] for line in err.splitlines()] == [["✓", "say"], ["✓", "path"]]


def test_chosen_steps_and_keys(gnomon):
    assert gnomon("exec-pipeline", "-c", "work.yaml", "--steps", "say")[1].splitlines() == ["hello", "child hello"]
    result = gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "pipeline", "--steps", "1:")
    assert result[1].splitlines()[-1] == "the/end"
    assert "Did you mean 'say'?" in failure(gnomon("exec-pipeline", "-c", "work.yaml", "--steps", "sya"))
    assert "Did you mean 'pipeline'?" in failure(gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "pipelin"))


def test_json_is_all_that_is_on_stdout(gnomon):
    code, out, err = gnomon("exec-pipeline", "-c", "work.yaml", "--json")
    assert code == 0
    document = json.loads(out)
    assert document["result"] == "the/end"
    assert document["run_dir"] == "runs/a"
    assert list(document["seconds"]) == ["say", "path"]
    assert "child hello" in err


def test_a_multirun(gnomon):
    _, out, _ = gnomon("exec-pipeline", "-c", "work.yaml", "-m", "word=a,b", "--steps", "say")
    assert out.splitlines() == ["a", "child a", "b", "child b"]
    documents = json.loads(gnomon("exec-pipeline", "-c", "work.yaml", "-m", "word=a,b", "--json")[1])
    assert [document["overrides"] for document in documents] == [["word=a"], ["word=b"]]
    assert [document["run_dir"] for document in documents] == ["runs/a-0", "runs/a-1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-c", "wrk.yaml"], "Did you mean 'work.yaml'?"),
        (["-cn", "wrk"], "Did you mean 'work'?"),
        (["-c", "work.yaml", "-cn", "work"], "Give either --config FILE"),
        (["-cp", "."], "--config-path needs --config-name"),
        (["-c", "work.yaml", "--cfg", "all"], "--cfg is 'all'"),
        (["-c", "work.yaml", "wrd=1"], "Did you mean 'word'?"),
        (["-c", "work.yaml", "word=1,2"], "--multirun"),
        (["-c", "work.yaml", "--trust", "no package"], "--trust 'no package' is not the name of a package"),
        (["-c", "plan.yaml"], "neither training_pipeline nor pipeline"),
        (["-c", "work.yaml", "pipeline._target_=gnomon.pipeline.Pipline"], "Did you mean 'Pipeline'?"),
        (["-c", "work.yaml", "pipeline.steps.say._target_=words.Sai"], "Did you mean 'Say'?"),
        (["-c", "work.yaml", "+pipeline.steps.say.wrd=1"], "has no argument 'wrd'. Did you mean 'word'?"),
        (["-c", "work.yaml", "word=???"], "has no value yet (???)"),
        (["-c", "work.yaml", "word=${wrd}"], "Did you mean 'word'?"),
        (["-c", "work.yaml", "run_dir=${wrd}", "-m"], "Did you mean 'word'?"),
        (["-c", "work.yaml", "--pipe-key", "pipeline..say"], "pipeline..say"),
    ],
)
def test_exec_pipeline_says_what_is_wrong(gnomon, arguments, words):
    assert words in failure(gnomon("exec-pipeline", *arguments))


def test_a_hostile_pipeline_is_refused(gnomon, here):
    text = failure(gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "hostile"))
    assert "'hostile._target_' is 'os.system': a configuration may not run that" in text
    assert not (here / "hostile").exists()


# Failures


def test_an_interruption_is_one_line(gnomon):
    result = gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "failing", "kind=interrupt")
    assert (result[0], result[2]) == (130, "error: Interrupted.\n")


def test_a_step_that_fails_is_named_and_leaves_its_traceback_in_a_file(gnomon, here, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(here))
    text = failure(gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "failing"))
    assert re.match(
        r"error: Step 'Fail' \(words\.Fail\) failed: ZeroDivisionError: really, at words\.py:\d+\. The traceback is",
        text,
    )
    assert "unexpectedly" not in text
    (written,) = here.glob("gnomon-traceback-*.txt")
    assert str(written) in text
    assert "ZeroDivisionError: really" in written.read_text()


def test_a_step_that_leaves_the_program_is_an_error(gnomon, here, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(here))
    text = failure(gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "failing", "kind=leave"))
    assert "Step 'Fail' (words.Fail) failed: it left the program (SystemExit: 3) instead of returning" in text


def test_a_step_that_fails_shows_its_traceback_when_debugging(gnomon, monkeypatch):
    monkeypatch.setenv("GNOMON_LOG_LEVEL", "DEBUG")
    code, _, text = gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "failing")
    assert code == 1
    assert 'raise ZeroDivisionError("really")' in text
    assert "The traceback is above." in text


def test_tracebacks_are_shown_when_debugging(gnomon, monkeypatch):
    monkeypatch.setenv("GNOMON_LOG_LEVEL", "debug")
    code, _, err = gnomon("exec-pipeline", "-c", "work.yaml", "--pipe-key", "failing")
    assert code == 1
    assert "Traceback" in err
    assert "The traceback is above" in err
    code, _, err = gnomon("exec-pipeline", "-c", "nope.yaml")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: Configuration file 'nope.yaml' not found")


def test_the_exit_code_is_the_errors(gnomon, monkeypatch):
    class Odd(GnomonError):
        exit_code = 7

    def refuse(*arguments, **named):
        raise Odd("no")

    monkeypatch.setattr("gnomon.plan.planner.plan", refuse)
    assert gnomon("plan", "plan.yaml")[0] == 7


# calibrate and profile


def test_calibrate_writes_a_profile(gnomon, here, monkeypatch):
    asked = {}

    def fake(**settings):
        asked.update(settings)
        print("working")
        return constant_profile()

    monkeypatch.setattr("gnomon.profile.calibrate.calibrate", fake)
    code, out, err = gnomon("calibrate", "--ranks", "1, 2", "--budget", "30", "--device", "cpu", "-o", "new.yaml")
    assert code == 0
    assert asked == {"ranks": [1, 2], "device": "cpu", "budget_s": 30.0}
    assert out.splitlines()[-1] == "Hardware profile written to new.yaml"
    assert "2 rank(s)" in out
    assert err == "working\n"
    _, out, err = gnomon("calibrate", "--json")
    assert json.loads(out) == constant_profile().to_mapping()
    assert "written to hardware-2.yaml (hardware.yaml exists and was kept" in err


@pytest.mark.parametrize("ranks", ["", "a", "0", "1,,2", "-1", "1.5"])
def test_calibrate_refuses_what_is_no_number_of_ranks(gnomon, ranks):
    assert "give numbers of ranks" in failure(gnomon("calibrate", f"--ranks={ranks}"))


def test_profile_train(gnomon, here, monkeypatch):
    from gnomon.runtime.run_directory import RunDirectory

    measurement = fake_measurement()
    monkeypatch.setattr("gnomon.profile.measure.measure", lambda run: measurement.save(run.measurement) and measurement)
    assert "is not a run directory" in failure(gnomon("profile", "train", "nowhere"))
    RunDirectory.create("run", "a: 1\n", {})
    code, out, _ = gnomon("profile", "train", "run")
    assert code == 0
    assert "568 ms" in out
    assert "matrix multiply" in out
    assert out.splitlines()[-1] == "Measurement written to run/measurement.json"
    assert "Add --force" in failure(gnomon("profile", "train", "run"))
    assert json.loads(gnomon("profile", "train", "run", "--force", "--json")[1]) == measurement.to_mapping()


# Output


def test_objects_as_json():
    value = {"noun": TINY, "path": Path("a/b"), 3: (1, None, True), "other": ConfigError("x")}
    assert _output.jsonable(value) == {
        "noun": TINY.to_mapping(),
        "path": "a/b",
        "3": [1, None, True],
        "other": "x",
    }
