"""Pipelines: what is passed on, what fits, and how steps are chosen."""

import pytest

from gnomon.component import Component
from gnomon.errors import PipelineError
from gnomon.pipeline import Pipeline


class Give(Component):
    def __init__(self, value):
        self.value = value

    def execute(self):
        return self.value


class Add(Component):
    def execute(self, a, b=1):
        return a + b


class Two(Component):
    def execute(self, a):
        return a, 10 * a


class Swallow(Component):
    def execute(self, *inputs):
        self.inputs = inputs


class Keyword(Component):
    def execute(self, a, *, needed):
        return a


def test_outputs_are_passed_on():
    swallow = Swallow()
    pipeline = Pipeline({"give": Give(3), "two": Two(), "add": Add(), "swallow": swallow, "again": Give((1, 2))})
    assert pipeline.execute() == (1, 2)
    assert swallow.inputs == (33,)
    assert list(pipeline.timings) == ["give", "two", "add", "swallow", "again"]
    assert all(seconds >= 0 for seconds in pipeline.timings.values())


@pytest.mark.parametrize(
    ("value", "inputs"), [(None, ()), ((), ()), ((1, 2), (1, 2)), ([1, 2], ([1, 2],)), (0, (0,)), ("ab", ("ab",))]
)
def test_none_a_tuple_and_one(value, inputs):
    swallow = Swallow()
    assert Pipeline([Give(value), swallow]).execute() is None
    assert swallow.inputs == inputs


def test_a_pipeline_takes_inputs_and_nests():
    inner = Pipeline([Two(), Add()])
    assert inner.execute(2) == 22
    assert Pipeline([Give(1), inner, Add()]).execute() == 12


def test_steps_are_reached_by_name_position_and_slice():
    steps = {"a": Give(1), "b": Two(), "c": Add()}
    pipeline = Pipeline(steps)
    assert pipeline["b"] is pipeline[1] is pipeline[-2] is steps["b"]
    assert len(pipeline) == 3
    assert list(pipeline) == list(steps.values())
    assert list(pipeline[:2].steps) == ["a", "b"]
    assert pipeline[:2].execute() == (1, 10)
    assert pipeline.steps == steps


def test_steps_of_a_list_keep_their_labels_in_a_part_of_it():
    pipeline = Pipeline([Give(1), Two(), Two(), Add()])[1:]
    assert isinstance(pipeline, Pipeline)
    assert list(pipeline.steps) == ["Two-1", "Two-2", "Add"]
    assert pipeline["Two-2"] is pipeline[1]


def test_a_wrong_fit_names_the_step_its_inputs_and_the_step_before():
    with pytest.raises(PipelineError) as caught:
        Pipeline({"first": Give((1, 2, 3)), "second": Add()}).execute()
    text = str(caught.value)
    assert "Step 'second' (Add) takes (a, b=1)" in text
    assert "step 'first' returned 3 value(s) (int, int, int)" in text
    assert "too many positional arguments" in text
    with pytest.raises(PipelineError, match=r"takes \(a\), but the pipeline was given 0 value\(s\) \(nothing\)"):
        Pipeline([Two()]).execute()
    with pytest.raises(PipelineError, match=r"takes \(no input\)"):
        Pipeline([Give(1), Give(2)]).execute()
    with pytest.raises(PipelineError, match=r"missing a required.*needed"):
        Pipeline([Give(1), Keyword()]).execute()


def test_a_type_error_inside_a_step_is_not_a_wrong_fit():
    with pytest.raises(TypeError, match="can only concatenate"):
        Pipeline([Give(("a", 1)), Add()]).execute()


def test_the_times_of_finished_steps_stay_after_a_failure():
    pipeline = Pipeline([Give(1), Keyword()])
    with pytest.raises(PipelineError):
        pipeline.execute()
    assert list(pipeline.timings) == ["Give"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], "at least one step"),
        ({}, "at least one step"),
        ("abc", "list or a mapping, found str"),
        (3, "list or a mapping, found int"),
        ([Give(1), print], "Step 'builtin_function_or_method' is a builtin_function_or_method, not a component"),
        ([{"size": 1}], "lost its _target_|lose its _target_"),
        ({"x": Two}, "Step 'x' is the class Two. Make an object of it"),
        ({"x": None}, "Step 'x' is a NoneType"),
    ],
)
def test_steps_must_be_components(steps, words):
    with pytest.raises(PipelineError, match=words):
        Pipeline(steps)


@pytest.mark.parametrize(
    ("chosen", "labels"),
    [
        ("a", "a"),
        ("c, a", "ac"),
        ("1:3", "bc"),
        ("b:", "bcd"),
        (":c", "ab"),
        ("a:c", "ab"),
        (":", "abcd"),
        ("-1", "d"),
        ("-2:", "cd"),
        ("0,2:4", "acd"),
        ("2:4,c", "cd"),
        (["d", "a"], "ad"),
        ([0, 2], "ac"),
    ],
)
def test_choosing_steps(chosen, labels):
    pipeline = Pipeline({label: Give(label) for label in "abcd"})
    assert "".join(pipeline.select(chosen).steps) == labels


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ("tran", "no step 'tran'. Did you mean 'train'?"),
        ("plan,tran", "Did you mean 'train'?"),
        ("tran:", "Did you mean 'train'?"),
        ("2", "no step 2; it has 2, numbered from 0"),
        ("-3", "no step -3"),
        ("0:5", "no step 5"),
        ("1:1", "chooses no step"),
        ("", "no step ''"),
        ([], "chooses no step"),
    ],
)
def test_choosing_steps_that_are_not_there(chosen, words):
    with pytest.raises(PipelineError, match=words):
        Pipeline({"plan": Give(1), "train": Give(2)}).select(chosen)


def test_steps_that_are_not_there():
    pipeline = Pipeline({"plan": Give(1), "train": Give(2)})
    with pytest.raises(PipelineError, match="Did you mean 'train'"):
        pipeline["tran"]
    with pytest.raises(PipelineError, match="no step 2"):
        pipeline[2]


def test_one_line_per_finished_step_on_stderr(capsys):
    Pipeline({"give": Give(1), "two": Two()}).execute()
    output = capsys.readouterr()
    assert output.out == ""
    lines = output.err.splitlines()
    assert [line.split()[1] for line in lines] == ["give", "two"]
    assert all(line.startswith("✓") for line in lines)
