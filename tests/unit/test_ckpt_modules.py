"""Whole modules, saved as objects: what their `state_dict()` has, and what it has not."""

import zipfile

import pytest
import torch
from torch import nn

from gnomon.ckpt.summarize import summarize


class Net(nn.Module):
    """A module with tensors in all the places where one may keep them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 3)
        self.w = nn.Parameter(torch.ones(4))
        self.register_buffer("passing", torch.ones(5), persistent=False)
        self.register_buffer("kept", torch.ones(6))
        self.extra = torch.ones(7)
        self.cache = {"k": torch.ones(8), "length": 9}
        self.blocks = [nn.Linear(1, 1)]
        self.depth = 10
        self.sizes = (1, 2)


@pytest.fixture(params=[2, 4])
def save(tmp_path, request):
    """Save an object with torch and return its summary."""

    def run(content):
        torch.save(content, tmp_path / "a.pt", pickle_protocol=request.param)
        return summarize(tmp_path / "a.pt")

    return run


def test_a_module_has_the_tensors_of_its_state_dict(save) -> None:
    found = save(Net())
    own = {tensor.name: tensor.shape for tensor in found.tensors if tensor.path[0] != "(attributes)"}
    assert own == {name: tuple(tensor.shape) for name, tensor in Net().state_dict().items()}


def test_other_tensors_of_a_module_are_attributes(save) -> None:
    found = save({"net": Net()})
    others = {tensor.name: tensor.shape for tensor in found.tensors if "(attributes)" in tensor.path}
    assert others == {
        "net.(attributes).extra": (7,),
        "net.(attributes).cache.k": (8,),
        "net.(attributes).blocks.0.weight": (1, 1),
        "net.(attributes).blocks.0.bias": (1,),
    }
    values = {value.name: value.value for value in found.values}
    assert (values["net.depth"], values["net.sizes"], values["net.cache.length"]) == (10, (1, 2), 9)
    assert found.total.elements == 9 + 4 + 6 + 7 + 8 + 2


def test_a_buffer_that_is_left_out_must_be_in_the_file_all_the_same(tmp_path) -> None:
    net = nn.Module()
    net.register_buffer("kept", torch.ones(2))
    net.register_buffer("passing", torch.ones(5), persistent=False)
    torch.save(net, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith("data/1"):
                part.writestr(name, whole.read(name))
    assert summarize(tmp_path / "a.pt").damage == ()
    assert "is missing or too short; the first is data/1." in summarize(tmp_path / "b.pt").damage[0]
