"""Building objects from configurations: Hydra's keys, and the message of every wrong argument."""

import sys

import pytest
from omegaconf import OmegaConf

from gnomon.component import Component
from gnomon.config import instantiate
from gnomon.errors import ConfigError, SpecError
from gnomon.spec import Layout

PARTS = """\
from pathlib import Path
from typing import Any, Literal
from gnomon import component

class Step(component.Component):
    def __init__(self, size, *, rate=0.5):
        if size == 13:
            raise ValueError("13 brings bad luck")
        if size == 14:
            raise ValueError("")
        self.size, self.rate = size, rate

    def execute(self):
        return self.size

class Typed(Step):
    def __init__(self, n: int = 1, rate: float | None = 0.5, on: bool = True, kind: Literal["mean", "sum"] = "sum",
                 name: str = "a", old: int = None, path: str | Path = ".", of: "list[int]" = (), **more: Any):
        self.size = n

def echo(*args: int, **kwargs: int):
    return args, kwargs

constant = 3
"""


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "broken.py").write_text("import parts\nraise RuntimeError('not today')\n")
    (tmp_path / "needy.py").write_text("import not_installed_anywhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("parts", "broken", "needy"):
        sys.modules.pop(name, None)


def message(config) -> str:
    with pytest.raises(ConfigError) as caught:
        instantiate(config)
    return str(caught.value)


def test_plain_values_pass_through():
    assert instantiate({"a": [1, {"b": None}], "c": "x"}) == {"a": [1, {"b": None}], "c": "x"}
    assert instantiate([1, "a"]) == [1, "a"]


def test_containers_become_plain():
    args, kwargs = instantiate({"_target_": "parts.echo", "_args_": [[1]], "a": {"b": [2]}})
    assert (args, kwargs) == (([1],), {"a": {"b": [2]}})
    assert type(args[0]) is list
    assert type(kwargs["a"]) is dict


def test_targets_nest_and_may_be_partial():
    config = OmegaConf.create(
        {
            "n": 3,
            "steps": [{"_target_": "parts.Step", "size": "${n}"}, {"_target_": "parts.Step", "size": 4, "rate": 1}],
            "later": {"_target_": "parts.Step", "_partial_": True, "rate": 2},
        }
    )
    built = instantiate(config)
    assert [step.size for step in built["steps"]] == [3, 4]
    assert isinstance(built["steps"][0], Component)
    assert built["later"](5).rate == 2
    assert instantiate(config.steps[1]).rate == 1


def test_not_recursive_leaves_mappings_alone():
    inner = {"_target_": "parts.Step", "size": 1}
    assert instantiate({"_target_": "parts.echo", "_recursive_": False, "a": inner})[1] == {"a": inner}


def test_a_noun_names_its_wrong_values():
    assert instantiate({"_target_": "gnomon.spec.Layout", "dp": 2}) == Layout(dp=2)
    assert "has no argument 'zero_stag'. Did you mean 'zero_stage'?" in message(
        {"l": {"_target_": "gnomon.spec.Layout", "zero_stag": 2}}
    )
    with pytest.raises(SpecError, match=r"'dp' is 0: .*greater than"):
        instantiate({"l": {"_target_": "gnomon.spec.Layout", "dp": 0}})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 1, "rat": 2}, "'pipeline.one' (parts.Step) has no argument 'rat'. Did you mean 'rate'?"),
        ({"rate": 2}, "missing a required argument: 'size'. It takes size, rate."),
        ({"_args_": [1, 2]}, "too many positional arguments"),
        ({"size": 13}, "'pipeline.one' (parts.Step) could not be made: ValueError: 13 brings bad luck."),
        ({"size": 14}, "could not be made: ValueError."),
        ({"size": "???"}, "No value for 'pipeline.one.size'"),
        ({"size": 1, "_partial_": "yes"}, "'pipeline.one._partial_' must be true or false, found 'yes'"),
        ({"size": 1, "_convert_": "none"}, "'pipeline.one._convert_' must be 'all'"),
        ({"_args_": 3}, "'pipeline.one._args_' must be a list, found int"),
    ],
)
def test_wrong_arguments(arguments, words):
    config = OmegaConf.create({"pipeline": {"one": {"_target_": "parts.Step", **arguments}}})
    assert words in message(config.pipeline)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": "abc"}, "'p.n' is 'abc', but parts.Typed takes a whole number. Correct the value"),
        ({"n": "5"}, "Write 5 without quotes."),
        ({"n": 5.0}, "'p.n' is 5.0, but parts.Typed takes a whole number. Write 5."),
        ({"n": None}, "'p.n' is null, but parts.Typed takes a whole number. Set it, or leave it out."),
        ({"n": [1]}, "'p.n' is a list, but"),
        ({"rate": "1e-3"}, "but parts.Typed takes a number or null. Write 0.001 without quotes."),
        ({"on": "False"}, "but parts.Typed takes true or false. Write false without quotes."),
        ({"kind": "men"}, "'p.kind' is 'men', but parts.Typed takes 'mean' or 'sum'. Did you mean 'mean'?"),
        ({"name": 12}, "'p.name' is 12, but parts.Typed takes text. Put it into quotes: '12'."),
    ],
)
def test_a_scalar_of_the_wrong_type_is_refused_where_a_component_is_annotated(arguments, words):
    assert words in message(OmegaConf.create({"p": {"_target_": "parts.Typed", **arguments}}).p)


def test_other_annotations_are_left_alone():
    for arguments in ({"rate": 1}, {"rate": None}, {"on": 0}, {"old": None}, {"path": 3}, {"of": "x"}, {"else": "x"}):
        assert instantiate({"_target_": "parts.Typed", **arguments}).size == 1
    assert instantiate({"_target_": "parts.echo", "a": "text"})[1] == {"a": "text"}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("parts.Stepp", "'parts' has no 'Stepp'. Did you mean 'Step'?"),
        ("parts.Step.exekute", "'parts.Step' has no 'exekute'. Did you mean 'execute'?"),
        ("parts.constant", "is a int and not a class or function"),
        ("gnomon.pipelin.Pipeline", "'gnomon' has no 'pipelin'. Did you mean 'pipeline'?"),
        ("gnomon.pipeline.steps.Repport", "Did you mean 'Report'?"),
        ("torch.nn.Lineer", "Did you mean 'Linear'?"),
        ("torch.nn.Zzzzzzzz", "'torch.nn' has no 'Zzzzzzzz'. Check its spelling."),
        ("torchmetrics.Accuracy", "'torchmetrics' is not installed"),
        ("broken.Step", "'broken' fails on import: RuntimeError: not today"),
        ("needy.Step", "importing 'needy' needs 'not_installed_anywhere', which is not installed"),
    ],
)
def test_a_target_that_does_not_exist(target, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics", None)  # what Python takes for not installed
    text = message({"a": {"_target_": target}})
    assert "'a._target_' is" in text
    assert words in text
