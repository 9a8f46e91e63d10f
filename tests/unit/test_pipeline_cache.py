"""Cached steps: what is taken from an earlier run, what is not, and that a wrong output is never taken."""

import enum
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from omegaconf import OmegaConf

from gnomon.component import Component
from gnomon.config import instantiate
from gnomon.errors import PipelineError
from gnomon.pipeline import Pipeline
from gnomon.pipeline.cache import NoFingerprintError, OutputStore, fingerprint
from gnomon.pipeline.cache.codec import DamagedError, NotStorableError
from gnomon.pipeline.job import compose_jobs, run_job
from gnomon.runtime.run_directory import RunDirectory
from gnomon.spec import Layout

RUNS: list[str] = []


class Kind(enum.Enum):
    A = 1
    B = 2


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RUNS.clear()
    return tmp_path


class Load(Component):
    def __init__(self, size=3):
        self.size = size

    def execute(self):
        RUNS.append("load")
        return np.arange(self.size)


class Scale(Component):
    def __init__(self, factor=2):
        self.factor = factor

    def execute(self, data):
        RUNS.append("scale")
        return self.factor * data


class Total(Component):
    def __init__(self, fails=False):
        self.fails = fails

    def execute(self, data):
        RUNS.append("total")
        if self.fails:
            raise ValueError("broken")
        return int(data.sum())


class Handle(Component):
    """Returns what no file can hold."""

    def execute(self):
        RUNS.append("handle")
        return (index for index in range(3))


def steps(size=3, factor=2, fails=False):
    return {"load": Load(size), "scale": Scale(factor), "total": Total(fails)}


def run(*args, cache=True, **kwargs):
    RUNS.clear()
    pipeline = Pipeline(steps(*args, **kwargs), cache=cache, cache_dir="cache")
    return pipeline.execute(), "".join(name[0] for name in RUNS), pipeline.cached


def test_a_finished_pipeline_is_not_run_again(capsys):
    assert run() == (6, "lst", [])
    capsys.readouterr()
    assert run() == (6, "", ["load", "scale", "total"])
    assert capsys.readouterr().err == "✓ load  cached\n✓ scale  cached\n✓ total  cached\n"


def test_a_changed_setting_runs_its_step_again_and_all_after_it():
    run()
    assert run(factor=3) == (9, "st", ["load"])
    assert run(size=4) == (12, "lst", [])
    assert run(factor=2) == (6, "", ["load", "scale", "total"])


def test_a_broken_pipeline_is_resumed():
    with pytest.raises(ValueError, match="broken"):
        run(fails=True)
    assert RUNS == ["load", "scale", "total"]
    assert run() == (6, "t", ["load", "scale"])


def test_only_the_named_steps_are_kept():
    assert run(cache=["scale"]) == (6, "lst", [])
    assert run(cache=["scale"]) == (6, "lt", ["scale"])
    assert run(cache=False) == (6, "lst", [])


def test_a_step_after_one_that_is_not_kept_depends_on_its_content():
    """What `load` returns is compared, since its code alone does not tell: it may read what others write."""
    assert run(cache=["scale"])[1] == "lst"
    assert run(4, cache=["scale"])[1] == "lst"
    assert run(cache=["scale"])[1] == "lt"


def test_changed_code_runs_again(folder):
    sys.path.insert(0, str(folder))
    source = (
        "from gnomon.component import Component\nclass Make(Component):\n    def execute(self):\n        return {}\n"
    )
    try:
        for value, cached in ((1, []), (1, ["make"]), (2, []), (1, ["make"])):
            (folder / "make_step.py").write_text(source.format(value))
            sys.modules.pop("make_step", None)
            sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
            import make_step

            sys.dont_write_bytecode = before
            pipeline = Pipeline({"make": make_step.Make()}, cache=True, cache_dir="cache")
            assert (pipeline.execute(), pipeline.cached) == (value, cached)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("make_step", None)


def test_a_changed_file_runs_again(folder):
    class_ = ReadFile
    (folder / "data.txt").write_text("one")
    assert Pipeline([class_("data.txt")], cache=True, cache_dir="cache").execute() == "one"
    (folder / "data.txt").write_text("two")
    pipeline = Pipeline([class_("data.txt")], cache=True, cache_dir="cache")
    assert (pipeline.execute(), pipeline.cached) == ("two", [])
    pipeline = Pipeline([class_("data.txt")], cache=True, cache_dir="cache")
    assert (pipeline.execute(), pipeline.cached) == ("two", ["ReadFile"])


class ReadFile(Component):
    def __init__(self, path):
        self.path = path

    def execute(self):
        return Path(self.path).read_text()


def test_a_graph_is_cached_by_what_each_step_takes():
    def graph(factor):
        RUNS.clear()
        named = {"load": Load(), "left": Scale(factor), "right": Scale(5), "left_sum": Total(), "right_sum": Total()}
        inputs = {"left": "load", "right": "load", "left_sum": "left", "right_sum": "right"}
        pipeline = Pipeline(named, inputs=inputs, cache=True, cache_dir="cache")
        return pipeline.execute(), pipeline.cached

    assert graph(2) == ({"left_sum": 6, "right_sum": 15}, [])
    assert graph(3) == ({"left_sum": 9, "right_sum": 15}, ["load", "right", "right_sum"])


def test_a_part_takes_what_it_needs_from_the_cache():
    run()
    RUNS.clear()
    assert Pipeline(steps(), cache=True, cache_dir="cache").select("total").execute() == 6
    assert Pipeline(steps(), cache=True, cache_dir="cache")[1:].execute() == 6
    assert RUNS == []
    inputs = {"scale": "load", "total": "scale"}
    graph = Pipeline(steps(factor=7), inputs=inputs, cache=True, cache_dir="cache")
    with pytest.raises(PipelineError, match=r"takes what step 'scale' returns, which is not .* in the cache"):
        graph.select("total").execute()
    assert graph.select("scale").execute().tolist() == [0, 7, 14]
    assert graph.select("total").execute() == 21
    assert RUNS == ["scale", "total"]
    # given inputs come before the cache, and without either a chain begins with no input
    assert Pipeline(steps(), cache=True, cache_dir="cache")[1:].execute(np.array([5])) == 10
    with pytest.raises(PipelineError, match="the pipeline was given 0"):
        Pipeline(steps(size=9), cache=True, cache_dir="cache")[1:].execute()


def test_what_cannot_be_stored_runs_again_and_is_said_once(capsys):
    pipeline = Pipeline({"handle": Handle()}, cache=True, cache_dir="cache")
    pipeline.execute()
    pipeline.execute()
    assert RUNS == ["handle", "handle"]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("!")]
    assert len(lines) == 1
    assert "handle  is not cached and will run again: a builtins.generator has no safe form" in lines[0]


class Draw(Component):
    """Returns something else each time, in `form`."""

    def __init__(self, form):
        self.form = form

    def execute(self):
        RUNS.append("draw")
        return {"set": set, "object": Drawn, "array": np.array}[self.form]([len(RUNS)])


class Drawn:
    def __init__(self, numbers):
        self.numbers = numbers

    def __iter__(self):
        return iter(self.numbers)


class First(Component):
    def execute(self, drawn):
        return next(iter(drawn))


@pytest.mark.parametrize(("form", "cached"), [("set", ["first"]), ("object", [])])
def test_what_takes_from_a_step_that_could_not_be_stored_goes_by_what_it_is_given(form, cached):
    pipeline = Pipeline({"draw": Draw(form), "first": First()}, cache=True, cache_dir="cache")
    assert [pipeline.execute() for _ in range(3)] == [1, 2, 3]
    RUNS.clear()
    assert (pipeline.execute(), pipeline.cached) == (1, cached)  # a set has a content that can be compared


def test_what_takes_from_a_step_whose_output_was_damaged_goes_by_the_new_one(folder):
    pipeline = Pipeline({"draw": Draw("array"), "first": First()}, cache=True, cache_dir="cache")
    assert [pipeline.execute(), pipeline.execute()] == [1, 1]
    drawn = next(path for path in (folder / "cache/objects").iterdir() if np.load(path).shape)
    drawn.write_bytes(b"damaged")
    assert (pipeline.execute(), pipeline.cached) == (2, [])
    assert (pipeline.execute(), pipeline.cached) == (2, ["draw", "first"])


def test_what_cannot_be_compared_is_said_with_its_setting(capsys):
    pipeline = Pipeline({"scale": Load(size=iter([]))}, cache=True, cache_dir="cache")
    with pytest.raises(TypeError):
        pipeline.execute()
    assert (
        "! scale  is not cached: setting 'size' of step 'scale' is a builtins.list_iterator, which"
        in capsys.readouterr().err
    )


def test_nested_pipelines_are_steps_like_others():
    def outer(factor):
        RUNS.clear()
        inner = Pipeline({"scale": Scale(factor), "total": Total()})
        pipeline = Pipeline({"load": Load(), "inner": inner}, cache=True, cache_dir="cache")
        return pipeline.execute(), RUNS.copy()

    assert outer(2) == (6, ["load", "scale", "total"])
    assert outer(2) == (6, [])
    assert outer(4) == (12, ["scale", "total"])


def test_several_ranks_run_everything(monkeypatch, capsys):
    run()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert run() == (6, "lst", [])
    assert "cache  is not used when several ranks run the pipeline" in capsys.readouterr().err


def test_from_a_configuration(folder):
    """Objects that the configuration makes are compared by the configuration that made them."""
    document = {
        "_target_": "gnomon.pipeline.Pipeline",
        "cache": True,
        "cache_dir": "cache",
        "steps": {"use": {"_target_": f"{__name__}.UseModel", "model": {"_target_": "torch.nn.Linear"}}},
    }
    trusted = [__name__.partition(".")[0]]
    for out_features, cached in ((2, []), (2, ["use"]), (3, []), (2, ["use"])):
        document["steps"]["use"]["model"] |= {"in_features": 1, "out_features": out_features}
        pipeline = instantiate(OmegaConf.create(document), trusted=trusted)
        assert (pipeline.execute(), pipeline.cached) == (out_features, cached)


class UseModel(Component):
    def __init__(self, model):
        self.model = model

    def execute(self):
        return self.model.out_features


def test_a_job_tells_what_was_cached(folder):
    (folder / "work.yaml").write_text(
        f"pipeline: {{_target_: gnomon.pipeline.Pipeline, cache: true, steps: {{load: {{_target_: {__name__}.Load}}}}}}"
    )
    trusted = [__name__.partition(".")[0]]
    results = [run_job(compose_jobs(folder, "work", [])[0], trusted=trusted) for _ in range(2)]
    assert [result.cached for result in results] == [[], ["load"]]
    assert (folder / "runs/cache/steps").is_dir()


# What is kept


VALUES = [
    None, True, 3, 1.5, float("inf"), "text", [1, [2]], (1, "x", None), {"a": 1, 2: (3,)}, b"bytes", (),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_come_back(value):
    store = OutputStore("cache")
    store.save("key", "step", value)
    found = store.load("key").value
    assert found == value
    assert type(found) is type(value)


def test_nouns_arrays_frames_and_tensors_come_back(folder):
    RunDirectory.create("run", "a: 1", {})
    (folder / "file.txt").write_text("x")
    values = {
        "noun": Layout(dp=2),
        "array": np.arange(6, dtype=np.float16).reshape(2, 3),
        "scalar": np.float32(1.5),
        "frame": polars.DataFrame({"x": [1, 2], "y": ["a", None]}),
        "tensor": torch.arange(4, dtype=torch.bfloat16).reshape(2, 2).t(),
        "path": Path("file.txt"),
        "run": RunDirectory("run"),
    }
    store = OutputStore("cache")
    store.save("key", "step", values)
    found = store.load("key").value
    assert found["noun"] == values["noun"]
    assert found["array"].dtype == np.float16
    assert np.array_equal(found["array"], values["array"])
    assert isinstance(found["scalar"], np.float32)
    assert found["frame"].equals(values["frame"])
    assert found["tensor"].dtype == torch.bfloat16
    assert torch.equal(found["tensor"], values["tensor"])
    assert found["path"] == Path("file.txt")
    assert found["run"].path == Path("run")
    assert {path.suffix for path in (folder / "cache/objects").iterdir()} == {".npy", ".parquet", ".safetensors"}


def test_equal_data_is_kept_once(folder):
    store = OutputStore("cache")
    for key in ("a", "b"):
        store.save(key, "step", np.zeros(1000))
    assert len(list((folder / "cache/objects").iterdir())) == 1


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, np.array([object()]), Kind.A, torch.zeros(2, requires_grad=True), torch.zeros(2).to_sparse(),
     torch.nn.Linear(1, 1), [[object()]]],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_safe_form_is_refused(value):
    with pytest.raises(NotStorableError, match="has no safe form in files"):
        OutputStore("cache").save("key", "step", value)
    assert OutputStore("cache").load("key") is None


def test_pickle_only_with_the_flag(capsys):
    with_pickle = Pipeline({"model": MakeSet()}, cache=True, cache_dir="cache", cache_pickle=True)
    assert with_pickle.execute() == {1, 2}
    assert with_pickle.execute() == {1, 2}
    assert with_pickle.cached == ["model"]
    without = Pipeline({"model": MakeSet()}, cache=True, cache_dir="cache")
    assert without.execute() == {1, 2}
    assert without.cached == []
    assert "it is a pickle, which cache_pickle: false does not read" in capsys.readouterr().err
    with pytest.raises(NotStorableError, match="cannot be pickled either"):
        OutputStore("cache", allow_pickle=True).save("key", "step", (index for index in "a"))


class MakeSet(Component):
    def execute(self):
        return {1, 2}


def test_a_hostile_cache_runs_nothing(folder):
    """A pickle, a class to import or a path outside in a manifest from elsewhere is not followed."""

    class Bomb:
        def __reduce__(self):
            return (os.system, ("touch exploded",))

    store = OutputStore("cache")
    name = store._write_object(pickle.dumps(Bomb()), ".pickle")
    outputs = [
        {"pickle": name},
        {"array": name, "scalar": False},
        {"noun": "antigravity:fly", "value": {}},
        {"noun": "gnomon.launch.local:run_ranks", "value": {}},
        {"bytes": "../../etc/passwd"},
        {"what": 1},
        {},
    ]
    for output in outputs:
        (folder / "cache/steps").mkdir(exist_ok=True)
        (folder / "cache/steps/key.json").write_text(json.dumps({"schema_version": 1, "output": output}))
        with pytest.raises(DamagedError):
            store.load("key")
    assert "antigravity" not in sys.modules
    assert not (folder / "exploded").exists()


@pytest.mark.parametrize("damage", ["object", "gone", "manifest", "not JSON"])
def test_a_damaged_entry_runs_again_and_is_said(folder, damage, capsys):
    run()
    objects, entries = list((folder / "cache/objects").iterdir()), list((folder / "cache/steps").iterdir())
    for path in objects if damage in ("object", "gone") else entries:
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes({"object": path.read_bytes()[:-1] + b"?", "manifest": b"[]"}.get(damage, b"{"))
    capsys.readouterr()
    assert run()[:2] == (6, "ls" if damage in ("object", "gone") else "lst")
    assert "load  runs again: its cached output cannot be used" in capsys.readouterr().err
    assert run() == (6, "", ["load", "scale", "total"])  # it was mended


def test_a_path_or_run_that_is_gone_runs_again(folder):
    def write():
        pipeline = Pipeline({"write": WriteFile()}, cache=True, cache_dir="cache")
        return pipeline.execute(), pipeline.cached

    assert write() == (Path("out.txt"), [])
    assert write() == (Path("out.txt"), ["write"])
    (folder / "out.txt").write_text("someone else")
    assert write()[1] == []
    assert (folder / "out.txt").read_text() == "mine"
    store = OutputStore("cache")
    store.save("key", "step", RunDirectory.create("run", "a: 1", {}))
    (folder / "run").rename(folder / "moved")
    with pytest.raises(DamagedError, match="is gone"):
        store.load("key")


class WriteFile(Component):
    def execute(self):
        Path("out.txt").write_text("mine")
        return Path("out.txt")


def test_a_cache_that_cannot_be_written_is_one_message(folder):
    (folder / "cache").write_text("a file")
    with pytest.raises(PipelineError, match=r"'load' cannot be kept in cache_dir='cache'.*Set another cache_dir"):
        run()


# Fingerprints


def test_different_values_have_different_fingerprints(folder):
    (folder / "file").write_text("x")
    values = [
        1, 1.0, True, "1", None, [1], (1,), {"a": 1}, {"a": 2}, {1}, b"1", Kind.A, Kind.B, Layout(dp=1), Layout(dp=2),
        np.array([1]), np.array([1.0]), np.array([[1]]), torch.tensor([1]), torch.tensor([2]), Path("a"), "a", "file",
        polars.DataFrame({"a": [1]}), polars.DataFrame({"b": [1]}), Load(1), Load(2), Scale(1), Load, len, float("nan"),
    ]  # fmt: skip
    prints = [fingerprint(value) for value in values]
    assert len(set(prints)) == len(values)
    assert prints == [fingerprint(value) for value in values]


def test_what_has_no_fingerprint():
    for value in (object(), lambda: 1, torch.nn.Linear(1, 1), np.array([object()]), [iter([])]):
        with pytest.raises(NoFingerprintError):
            fingerprint(value)
