"""Keys of dictionaries: none is lost, equal ones replace each other, those that print alike are told apart."""

import argparse
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gnomon.ckpt import walk
from gnomon.ckpt.inert import Call, Global, Pairs
from gnomon.ckpt.keys import entries
from gnomon.ckpt.pickle_machine import PickleMachine
from gnomon.ckpt.printing import told_apart
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError


class Items(dict):
    """A dictionary that also has attributes."""


class Sequence(list):
    """A list that also has attributes."""


class State:
    """Has the state that it is given."""

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        self.state = state


@pytest.fixture
def save(tmp_path):
    """Save an object with torch and return its summary."""

    def run(content, protocol=2):
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
        return summarize(tmp_path / "a.pt")

    return run


def sizes(found):
    return {tensor.name: tensor.shape[0] for tensor in found.tensors}


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_state_of_an_optimizer_has_parameters_as_keys(save, protocol) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    found = save(optimizer, protocol)
    states = [tensor for tensor in found.tensors if tensor.path[0] == "state"]
    assert sum(tensor.num_elements for tensor in states) == 126
    assert found.total.elements == 126 + 60
    assert len({tensor.path for tensor in found.tensors}) == len(found.tensors) == 18 + 6
    assert states[-1].name == "state.<tensor (4,)>#3.exp_avg_sq"


def test_a_number_and_its_text_are_two_keys(save) -> None:
    found = save({1: torch.ones(2), "1": torch.ones(3), "a": torch.ones(4), None: torch.ones(5), "None": torch.ones(6)})
    assert sizes(found) == {"1": 2, "1#2": 3, "a": 4, "None": 5, "None#2": 6}


@pytest.mark.parametrize("protocol", [2, 4])
def test_keys_whose_texts_are_cut_short(save, protocol) -> None:
    found = save({(0, 0, 0, 0, number): torch.ones(number + 1) for number in range(5)}, protocol)
    assert sorted(sizes(found).values()) == [1, 2, 3, 4, 5]
    found = save({"x" * 2000 + str(number): torch.ones(number + 1) for number in range(3)}, protocol)
    assert sorted(sizes(found).values()) == [1, 2, 3]
    found = save({frozenset(range(number + 9)): torch.ones(number + 1) for number in range(3)}, protocol)
    assert sorted(sizes(found).values()) == [1, 2, 3]


def test_two_parameters_on_one_storage_are_two_keys(save) -> None:
    first = torch.nn.Parameter(torch.ones(2))
    second = torch.nn.Parameter(first.data)
    assert sorted(sizes(save({first: torch.ones(3), second: torch.ones(4)})).values()) == [3, 4]


EQUAL = {
    "text": (b"X\x01\x00\x00\x00a", b"X\x01\x00\x00\x00a"),
    "numbers": (b"K\x01", b"\x88"),
    "tuples": (b"K\x01K\x02\x86", b"K\x01K\x02\x86"),
    "names": (b"cacme\nA\n", b"cacme\nA\n"),
    "calls": (b"ctorch\nSize\nK\x01\x85\x85R", b"ctorch\nSize\nK\x01\x85\x85R"),
    "one object": (b"cacme\nA\n)Rq\x00", b"h\x00"),
}
DIFFERENT = {
    "text": (b"X\x01\x00\x00\x001", b"K\x01"),
    "tuples": (b"K\x01K\x02\x86", b"K\x01K\x03\x86"),
    "calls": (b"ctorch\nSize\nK\x01\x85\x85R", b"ctorch\nSize\nK\x02\x85\x85R"),
    "two objects": (b"cacme\nA\n)R", b"cacme\nA\n)R"),
    "long tuples": (b"(" + b"K\x01" * 100 + b"t", b"(" + b"K\x01" * 100 + b"t"),
}


def pairs(first: bytes, second: bytes):
    return PickleMachine().read(io.BytesIO(b"\x80\x02}(" + first + b"K\x07" + second + b"K\x08u.")).items


@pytest.mark.parametrize("name", EQUAL)
def test_a_key_that_is_set_again_has_the_later_value(name) -> None:
    assert [item for _, item in entries(pairs(*EQUAL[name]))] == [8]


@pytest.mark.parametrize("name", DIFFERENT)
def test_keys_that_differ_are_kept(name) -> None:
    found = entries(pairs(*DIFFERENT[name]))
    assert [item for _, item in found] == [7, 8]
    assert len({key for key, _ in found}) == 2


def test_huge_keys_are_compared_to_a_limit() -> None:
    inner = tuple(range(10))
    for _ in range(40):
        inner = (inner, inner)
    assert len(entries([(inner, 1), (inner, 2), (1 << 100_000, 3)])) == 2


def test_keys_that_are_set_again_and_again_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(walk, "MAX_VISITS", 100)
    walk.Walker("a").walk(Pairs([("a", 1)] * 99))
    with pytest.raises(CheckpointError, match="expands to more than 100 entries"):
        walk.Walker("a").walk(Pairs([("a", 1)] * 200))


@given(st.lists(st.sampled_from(["a", "a#2", "a#3", "a#2#2", "b", "b#2"])))
def test_names_are_told_apart(texts) -> None:
    names = told_apart(texts)
    assert len(set(names)) == len(names) == len(texts)
    assert all(name == text or name.startswith(f"{text}#") for name, text in zip(names, texts, strict=True))
    assert all(names[texts.index(text)] == text for text in texts)


def test_attributes_and_items_of_one_name_are_both_kept(save) -> None:
    content = Items(a=torch.ones(2), b=torch.ones(3), c=1)
    content.__dict__.update(a=torch.ones(4), b=content["b"], c=1)
    found = save(content)
    assert sizes(found) == {"a": 4, "a#2": 2, "b": 3}
    assert [value.name for value in found.values if value.type == "int"] == ["c"]


def test_attributes_and_places_of_one_name_are_both_kept(save) -> None:
    content = Sequence([torch.ones(2), torch.ones(3)])
    content.__dict__["0"] = torch.ones(4)
    assert sizes(save(content)) == {"0": 4, "0#2": 2, "1": 3}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"a": torch.ones(1), 2: torch.ones(2)}, {"a": 1, "2": 2}),
        ((torch.ones(1), {"a": torch.ones(2)}), {"(state).0": 1, "(state).1.a": 2}),
        (({"a": torch.ones(1)}, {"a": torch.ones(2)}), {"a": 1, "a#2": 2}),
        ([torch.ones(1)], {"(state).0": 1}),
        ((None, {"a": torch.ones(2)}), {"a": 2}),
    ],
)
def test_no_part_of_a_state_is_lost(save, state, expected) -> None:
    assert sizes(save(State(state))) == expected


def test_names_in_namespaces_and_arrays_stay_as_they_are(save) -> None:
    found = save({"args": argparse.Namespace(a=torch.ones(2)), "array": np.ones(3)})
    assert sizes(found) == {"args.a": 2, "array": 3}


def test_a_tensor_as_a_key_has_its_shape(save) -> None:
    assert save({torch.ones(2, 3): 1}).values[0].name == "<tensor (2, 3)>"
    assert entries([(Call(Global("acme", "A"), (1,)), 2)]) == [("acme.A(1)", 2)]
