"""Pipelines whose steps name their inputs, and what is checked before and while they run."""

import typing

import numpy as np
import pytest

from gnomon.component import Component
from gnomon.errors import PipelineError
from gnomon.pipeline import Pipeline

RUNS: list[str] = []


@pytest.fixture(autouse=True)
def _forget():
    RUNS.clear()


class Give(Component):
    def __init__(self, *values):
        self.values = values

    def execute(self):
        RUNS.append("give")
        return self.values if len(self.values) != 1 else self.values[0]


class Show(Component):
    """Returns what it was given, to be looked at."""

    def execute(self, *args, **kwargs):
        RUNS.append("show")
        return {"args": args, **kwargs}


class Join(Component):
    def execute(self, a, b="-"):
        return f"{a}{b}"


def graph(steps, inputs, **more):
    return Pipeline(steps, inputs=inputs, **more)


def test_references():
    steps = {"many": Give(1, 2, 3), "one": Give("x"), "none": Give(), "show": Show()}
    inputs = {"show": ["many.2", "one", "none", "many"]}
    assert graph(steps, inputs).execute()["args"] == (3, "x", 1, 2, 3)
    by_name = graph(steps, {"show": {"p": "many.0", "q": "one"}, "none": None}).execute()
    assert by_name["show"] == {"args": (), "p": 1, "q": "x"}
    assert graph(steps, {"show": "many", "one": [], "none": []}).execute()["show"]["args"] == (1, 2, 3)


def test_order_follows_the_inputs_not_the_text():
    pipeline = graph({"last": Join(), "right": Give("r"), "left": Give("l")}, {"last": ["left", "right"]})
    assert list(pipeline.steps) == ["right", "left", "last"]
    assert pipeline.execute() == "lr"
    assert list(pipeline.timings) == ["right", "left", "last"]
    assert pipeline[0] is pipeline["right"]


def test_several_final_steps_return_a_mapping():
    pipeline = graph({"a": Give(1), "b": Join(), "c": Join()}, {"b": "a", "c": "a"})
    assert pipeline.execute() == {"b": "1-", "c": "1-"}


def test_outputs_of_a_graph_can_be_unused():
    assert graph({"a": Give(1, 2), "b": Join()}, {"b": "a.1"}).execute() == "2-"


def test_inputs_of_the_pipeline_and_nesting():
    inner = graph({"swap": Join()}, {"swap": ["INPUT_ARG#1", "INPUT_ARG#0"]})
    assert inner.execute("a", "b") == "ba"
    outer = graph({"x": Give("x"), "y": Give("y"), "inner": inner}, {"inner": ["x", "y"]})
    assert outer.execute() == "yx"
    with pytest.raises(PipelineError, match=r"Step 'swap' takes 'INPUT_ARG#1', but the pipeline was given 1 value"):
        inner.execute("a")


def test_a_cycle_is_printed():
    steps = {"a": Join(), "b": Join(), "c": Join()}
    with pytest.raises(PipelineError, match=r"cycle: a -> b -> c -> a \(a -> b: b takes"):
        graph(steps, {"b": "a", "c": "b", "a": "c.0"})
    with pytest.raises(PipelineError, match="cycle: b -> b"):
        graph(steps, {"b": "b"})


def test_independent_steps_are_reported(capsys):
    steps = {"load": Give(1), "left": Join(), "right": Join(), "end": Join()}
    pipeline = graph(steps, {"left": "load", "right": "load", "end": ["left", "right"]})
    assert pipeline.independent_steps == [["left", "right"]]
    pipeline.execute()
    assert capsys.readouterr().err.splitlines()[0] == "· left right  independent of each other"
    assert Pipeline(steps).independent_steps == []


def test_results_are_let_go_of_when_no_step_needs_them():
    import weakref

    class Big:
        pass

    class Make(Component):
        def execute(self):
            big = Big()
            self.reference = weakref.ref(big)
            return big

    class Use(Component):
        def execute(self, big):
            return 1

    make = Make()

    class Look(Component):
        def execute(self, one):
            return make.reference() is None

    assert Pipeline([make, Use(), Look()]).execute() is True


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"trian": "load"}, "inputs names the step 'trian', which does not exist. Did you mean 'train'?"),
        ({"train": "laod"}, "inputs.train takes from the step 'laod', which does not exist. Did you mean 'load'?"),
        ({"train": ["laod.0"]}, "the step 'laod'"),
        ({"train": ["load.x"]}, "outputs are numbered from 0: write 'load.0'"),
        ({"train": ["load.-1"]}, "outputs are numbered from 0"),
        ({"train": [3]}, "inputs.train has 3; name a step"),
        ({"train": 3}, "inputs.train has 3; name a step"),
        ({"train": {"a": ["load"]}}, r"inputs.train has \['load'\]"),
        (["load"], "inputs is a list; give a mapping"),
    ],
)
def test_wrong_inputs(inputs, words):
    with pytest.raises(PipelineError, match=words):
        graph({"load": Give(1), "train": Join()}, inputs)


def test_a_graph_needs_names():
    with pytest.raises(PipelineError, match="inputs needs names for the steps"):
        Pipeline([Give(1)], inputs={})


# What does not fit


def test_an_output_that_is_not_there_names_both_steps():
    with pytest.raises(
        PipelineError, match=r"'train' takes 'load.2', but step 'load' returned 2 value\(s\) \(int, str\)"
    ):
        graph({"load": Give(1, "x"), "train": Join()}, {"train": "load.2"}).execute()
    with pytest.raises(
        PipelineError, match=r"takes one value as 'a', but step 'load' returned 2 .* Choose one: a: load.0"
    ):
        graph({"load": Give(1, "x"), "train": Join()}, {"train": {"a": "load"}}).execute()


def test_a_wrong_number_of_inputs_names_all_steps():
    with pytest.raises(PipelineError, match=r"'load', 'more' give 3 value\(s\) \(int, int, str\): too many"):
        graph({"load": Give(1, 2), "more": Give("x"), "train": Join()}, {"train": ["load", "more"]}).execute()
    with pytest.raises(PipelineError, match=r"Step 'train' \(Join\) takes \(a, b='-'\), but its inputs name no step"):
        graph({"load": Give(1), "train": Join()}, {}).execute()
    with pytest.raises(PipelineError, match="unexpected keyword argument 'c'"):
        graph({"load": Give(1), "train": Join()}, {"train": {"a": "load", "c": "load"}}).execute()


class Three(Component):
    def __init__(self, *values):
        self.values = values

    def execute(self) -> tuple[int, int, int]:
        RUNS.append("three")
        return self.values


class Number(Component):
    def execute(self, value: int | None, weight: float = 1.0) -> float:
        return weight * (value or 0)


def test_annotations_show_a_misfit_before_anything_runs():
    with pytest.raises(PipelineError, match=r"step 'three' will return 3 value\(s\)"):
        Pipeline({"three": Three(1, 2, 3), "number": Number()}).execute()
    with pytest.raises(PipelineError, match="takes one value as 'value', but step 'three' will return 3"):
        graph({"three": Three(1, 2, 3), "number": Number()}, {"number": {"value": "three"}}).execute()
    assert RUNS == []


def test_a_return_value_that_breaks_its_promise_names_both_steps():
    with pytest.raises(PipelineError) as caught:
        Pipeline({"three": Three(1, 2), "show": Show()}).execute()
    text = str(caught.value)
    assert "Step 'three' (Three) promises 3 output(s) (tuple[int, int, int]) but returned 2" in text
    assert "which 'show' would take" in text
    with pytest.raises(PipelineError, match=r"promises tuple\[int, int, int\] but returned \(int, str, int\)"):
        Pipeline({"three": Three(1, "x", 3), "show": Show()}).execute()


def test_an_input_of_the_wrong_type_names_both_steps():
    with pytest.raises(PipelineError) as caught:
        Pipeline({"load": Give("text"), "number": Number()}).execute()
    assert "Step 'number' (Number) takes 'value' as int | None, but step 'load' returned a str" in str(caught.value)
    assert Pipeline([Give(np.int64(3), 2), Number()]).execute() == 6.0  # NumPy's integers count, and ints as floats


class Lenient(Component):
    def execute(self, a: typing.Any, b: "NotThere" = None, *more: str) -> "typing.Sequence[int]":  # noqa: F821
        return [1]


def test_annotations_that_say_nothing_are_no_hindrance():
    assert Pipeline([Give(1, 2, 3), Lenient()]).execute() == [1]


# Parts of a graph


def test_a_part_needs_what_it_takes():
    steps = {"load": Give(1), "train": Join(), "test": Join()}
    pipeline = graph(steps, {"train": "load", "test": ["train", "load"]})
    assert pipeline[:2].execute() == "1-"
    assert pipeline.select("load,train").execute() == "1-"
    RUNS.clear()
    with pytest.raises(PipelineError) as caught:
        pipeline.select("load,test").execute()
    assert "Step 'test' takes what step 'train' returns, which is not among the chosen steps (load, test)" in str(
        caught.value
    )
    assert "cache: true" in str(caught.value)
    assert RUNS == []
    with pytest.raises(PipelineError, match="Did you mean 'train'"):
        pipeline.select("tran")
    with pytest.raises(PipelineError, match="choose none"):
        pipeline[3:]


@pytest.mark.parametrize(
    ("cache", "words"),
    [("load", "cache is 'load'; give true, false or a list"), (["laod"], "Did you mean 'load'"), (3, "cache is 3")],
)
def test_wrong_cache_settings(cache, words):
    with pytest.raises(PipelineError, match=words):
        Pipeline({"load": Give(1)}, cache=cache)
