"""Ready components: adapter, splitters, monitor, settings, and one component as a program."""

import dataclasses
import inspect
import itertools
import subprocess
import sys

import numpy as np
import pandas
import polars
import pytest
import torch
from torch.utils.data import Subset, TensorDataset

from gnomon.component import (
    Adapter,
    Component,
    DataGetter,
    DataProcessor,
    OrderedSplitter,
    Predictor,
    RandomSplitter,
    Saver,
    main,
    monitor,
    settings_of,
)
from gnomon.errors import ConfigError, DataError, PipelineError
from gnomon.pipeline import Pipeline

# Adapter


def test_the_adapter_rearranges_and_adds_literals():
    assert Adapter(["INPUT_ARG#2", "INPUT_ARG#0", 7, "text", None]).execute("a", "b", "c") == (
        "c",
        "a",
        7,
        "text",
        None,
    )
    assert Adapter([]).execute(1, 2) == ()
    nested = Adapter([["INPUT_ARG#1", {"x": ("INPUT_ARG#0", 1)}], {"INPUT_ARG#0": []}])
    assert nested.execute("a", "b") == (["b", {"x": ("a", 1)}], {"INPUT_ARG#0": []})


def test_the_adapter_needs_its_inputs():
    with pytest.raises(PipelineError, match=r"uses INPUT_ARG#2, so it needs 3 inputs, but it was given 2"):
        Adapter(["INPUT_ARG#0", {"x": ["INPUT_ARG#2"]}]).execute(1, 2)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("INPUT_ARG#0", "give a list"),
        ([{"x": "INPUT_ARG#x"}], "'INPUT_ARG#x' in a policy has no number"),
        (["INPUT_ARG#-1"], "has no number from 0"),
        (["INPUT_ARG#"], "has no number from 0"),
    ],
)
def test_wrong_policies(policy, words):
    with pytest.raises(PipelineError, match=words):
        Adapter(policy)


# Splitters


def test_every_sample_is_in_exactly_one_part():
    for length in (10, 11, 97):
        parts = RandomSplitter(0.7, 0.2, 0.1).execute(list(range(length)))
        assert sorted(itertools.chain(*parts)) == list(range(length))
        assert [len(part) for part in parts] == [round(length * 0.7), round(length * 0.9) - round(length * 0.7),
                                                 length - round(length * 0.9)]  # fmt: skip


def test_the_seed_decides():
    data = list(range(100))
    first, again, other = (RandomSplitter(0.8, 0.2, seed=seed).execute(data) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first[2] is None
    # the same on every machine: these numbers must never change
    assert RandomSplitter(0.5, 0.5, seed=0).execute(list(range(8)))[0] == [2, 4, 3, 6]


def test_ordered_parts_keep_the_order():
    assert OrderedSplitter(0.5, 0.25, 0.25).execute(list("abcdefgh")) == (list("abcd"), list("ef"), list("gh"))


def test_containers_keep_their_kind():
    split = RandomSplitter(0.75, 0.0, 0.25, seed=3)
    expected = np.random.default_rng(3).permutation(8)[:6]
    assert np.array_equal(split.execute(np.arange(8) * 10)[0], expected * 10)
    both, none, _ = split.execute({"x": np.arange(8), "y": list("abcdefgh")})
    assert none is None
    assert ["abcdefgh"[index] for index in both["x"]] == both["y"]
    assert split.execute(polars.DataFrame({"x": range(8)}))[0]["x"].to_list() == expected.tolist()
    assert split.execute(pandas.DataFrame({"x": range(8)}))[0]["x"].to_list() == expected.tolist()
    part = split.execute(TensorDataset(torch.arange(8)))[0]
    assert isinstance(part, Subset)
    assert [int(value) for (value,) in part] == expected.tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1.1, 0, 0), "train=1.1 is not a proportion"),
        ((0.9, -0.1, 0.2), "validation=-0.1 is not a proportion"),
        ((0.9, 0.1, "x"), "test='x' is not a proportion"),
        ((True, 0, 0), "train=True is not a proportion"),
        ((float("nan"), 0, 0), "train=nan is not a proportion"),
        ((0.7, 0.2, 0.2), r"0.7 \+ 0.2 \+ 0.2 = 1.1; they must sum to 1. .* set train=0.6"),
        ((0.1, 0.8, 0.8), r"1.6, more than 1"),
        ((1, 0, 0, -1), "seed=-1"),
        ((1, 0, 0, 0.5), "seed=0.5"),
    ],
)
def test_wrong_proportions(arguments, words):
    with pytest.raises(ConfigError, match=words):
        RandomSplitter(*arguments)


def test_thirds_sum_to_one():
    assert [len(part) for part in RandomSplitter(1 / 3, 1 / 3, 1 / 3).execute(range(9))] == [3, 3, 3]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((index for index in range(9)), "A generator has no length"),
        ([1, 2], "has 2 samples, of which validation=0.1 are none"),
        ({"x": [1, 2], "y": [1]}, "'x' has 2, 'y' has 1"),
        ({}, "there is none"),
    ],
)
def test_data_that_cannot_be_split(data, words):
    with pytest.raises(DataError, match=words):
        RandomSplitter(0.9, 0.1).execute(data)


# Roles


class Numbers(DataGetter):
    def execute(self):
        return list(range(10))


class Scale(DataProcessor):
    def execute(self, train, validation=None, test=None):
        return tuple(None if part is None else [2 * value for value in part] for part in (train, validation, test))


class Mean(Predictor):
    def execute(self, dataset, model=None):
        return [(model or self.model) for _ in dataset]


class Keep(Saver):
    def execute(self, artifact):
        self.kept = artifact
        return artifact


def test_roles_make_a_pipeline():
    keep = Keep()
    steps = [Numbers(), OrderedSplitter(0.5, 0.0, 0.5), Scale(), Adapter(["INPUT_ARG#2"]), Mean(model=3), keep]
    assert Pipeline(steps).execute() == [3] * 5
    assert keep.kept == [3] * 5


def test_a_role_without_execute_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        DataGetter()


# Settings


class Base(Component):
    def __init__(self, size, *more, name2="x"):
        self.size = size

    def execute(self):
        return self.size


class Derived(Base):
    def __init__(self, factor=3):
        super().__init__(2 * factor, name2="y")


class Inherits(Base):
    pass


@dataclasses.dataclass
class Data(Component):
    size: int
    other: str = "z"

    def execute(self):
        return self.size


def test_settings_are_the_outermost_arguments_with_defaults():
    assert settings_of(Base(1, 2, 3)) == {"size": 1, "more": (2, 3), "name2": "x"}
    assert settings_of(Derived()) == {"factor": 3}
    assert settings_of(Inherits(size=4, name2="q")) == {"size": 4, "more": (), "name2": "q"}
    assert settings_of(Data(5)) == {"size": 5, "other": "z"}
    assert settings_of(Numbers()) == {}
    assert list(inspect.signature(Derived).parameters) == ["factor"]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        Base()


# Monitor and cleanup


class Closes(Component):
    def __init__(self, fails=False):
        self.fails, self.events = fails, []

    @monitor
    def execute(self):
        self.events.append("execute")
        if self.fails:
            raise ValueError("broken")
        return 1

    def cleanup(self):
        self.events.append("cleanup")


@pytest.mark.parametrize("wrap", [lambda step: step, lambda step: Pipeline([step])])
def test_cleanup_once_after_each_execution_and_one_line(wrap, capsys):
    step = Closes()
    runner = wrap(step)
    assert (runner.execute(), runner.execute()) == (1, 1)
    assert step.events == ["execute", "cleanup"] * 2
    assert [line.split()[:2] for line in capsys.readouterr().err.splitlines()] == [["✓", "Closes"]] * 2
    assert 0 < step.last_s < 1
    broken = Closes(fails=True)
    with pytest.raises(ValueError, match="broken"):
        wrap(broken).execute()
    assert broken.events == ["execute", "cleanup"]
    assert capsys.readouterr().err == ""


def test_lines_of_nested_pipelines_tell_where(capsys):
    Pipeline({"outer": Pipeline({"inner": Numbers()}), "last": Keep()}).execute()
    lines = [line.split()[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["outer.inner", "outer", "last"]


def test_one_rank_prints(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    Pipeline([Numbers()]).execute()
    assert capsys.readouterr().err == ""


# One component as a program


class Count(Component):
    """Counts up.

    More words.
    """

    def __init__(self, stop: int, word: str = "x", steps: list[float] | None = None):
        if stop < 0:
            raise ConfigError(f"stop={stop} is negative.")
        self.stop, self.word, self.steps = stop, word, steps

    def execute(self, offset: int = 0):
        return [self.word, self.stop + offset, self.steps]


def test_arguments_files_and_environment(tmp_path, capsys, monkeypatch):
    assert main(Count, ["--stop", "3", "--steps", "[1, 2.5]", "--execute.offset=4"]) == ["x", 7, [1.0, 2.5]]
    assert capsys.readouterr().out == "['x', 7, [1.0, 2.5]]\n"
    file = tmp_path / "count.yaml"
    file.write_text("stop: 5\nword: file\nexecute: {offset: 1}\n")
    assert main(Count, ["--config", str(file)]) == ["file", 6, None]
    assert main(Count, ["--config", str(file), "--stop=1"]) == ["file", 2, None]
    monkeypatch.setenv("COUNT_STOP", "8")
    assert main(Count, []) == ["x", 8, None]


def test_printing_the_configuration_makes_one_that_works(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(Count, ["--stop=2", "--word=printed", "--print_config"])
    assert end.value.code == 0
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert main(Count, ["-c", str(tmp_path / "printed.yaml")]) == ["printed", 2, None]


def test_help_shows_the_docstring(capsys):
    with pytest.raises(SystemExit):
        main(Count, ["--help"])
    text = capsys.readouterr().out
    assert "Counts up." in text
    assert "--execute.offset" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stpo=3"], "Did you mean '--stop'?"),
        (["--stop=many"], "Expected a <class 'int'>. Got value: many"),
        ([], "arguments are required: stop"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (["--config", "{stpo: 3}"], "Did you mean 'stop'?"),
        (["--stop=-1"], "stop=-1 is negative"),
    ],
)
def test_wrong_arguments_are_one_message(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(Count, arguments)
    assert end.value.code == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert words in err


def test_what_is_missing_or_wrong_is_said(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        main(print, [])
    assert "give it a class that derives from gnomon's Component" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    with pytest.raises(SystemExit):
        main(Count, [])
    assert "pip install jsonargparse" in capsys.readouterr().err


def test_base_classes_are_cheap_to_import():
    heavy = "{'torch', 'numpy', 'hydra', 'pydantic', 'rich', 'networkx', 'jsonargparse'}"
    script = f"import sys, gnomon.component, gnomon.pipeline; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
