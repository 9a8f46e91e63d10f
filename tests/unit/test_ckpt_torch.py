"""Checkpoints that PyTorch wrote, summarised without PyTorch."""

import argparse
import collections
import enum
import json
import pathlib
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from gnomon.ckpt.contents import Checkpoint
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(100, 16)
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(16, 16), "up": nn.Linear(16, 64)}) for _ in range(4))
        self.head = nn.Linear(16, 100, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))


class Backend(enum.Enum):
    FLASH = "flash"


class Options:
    class Inner:
        pass


def by_name(checkpoint):
    return {tensor.name: tensor for tensor in checkpoint.tensors}


def values(checkpoint):
    return {value.name: value.value for value in checkpoint.values}


@pytest.fixture
def save(tmp_path):
    """Save an object with torch and return its summary."""

    def run(content, **options) -> Checkpoint:
        torch.save(content, tmp_path / "a.pt", **options)
        return summarize(tmp_path / "a.pt")

    return run


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "before 1.6"])
def test_a_training_checkpoint(save, zip_format):
    model = Tied().to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters())
    sum(parameter.float().sum() for parameter in model.parameters()).backward()
    optimizer.step()
    content = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=1e-3, dtype=torch.bfloat16, device=torch.device("cuda", 1)),
        "iteration": 1000,
    }
    found = save(content, _use_new_zipfile_serialization=zip_format)
    assert found.format == ("PyTorch" if zip_format else "PyTorch before 1.6")
    expected = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        expected |= {f"optimizer.state.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors = by_name(found)
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].shape == tuple(tensor.shape)
        assert tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert tensors[name].bytes == tensor.nbytes
    assert values(found)["iteration"] == 1000
    assert values(found)["args.lr"] == 1e-3
    assert values(found)["args.dtype"] == "torch.bfloat16"
    assert values(found)["args.device"] == "cuda:1"
    assert values(found)["optimizer.param_groups.0.betas"] == (0.9, 0.999)
    assert {value.name: value.type for value in found.values}["args"] == "argparse.Namespace"
    # 7040 parameters of which embedding and head are one, two moments of each, 17 steps in fp32, a mask of four
    assert found.by_dtype["bfloat16"].elements == 3 * 7040
    assert found.by_dtype["float32"].bytes == 17 * 4
    assert found.total.bytes == 3 * 7040 * 2 + 17 * 4 + 4 == found.stored_bytes
    assert found.total.tensors == len(expected)
    assert (found.warnings, found.notes, dict(found.calls)) == ((), (), {})


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(save, dtype):
    found = save({"w": torch.zeros(3, 5, dtype=dtype)})
    assert [(t.name, f"torch.{t.dtype}", t.shape, t.bytes) for t in found.tensors] == [
        ("w", str(dtype), (3, 5), 15 * dtype.itemsize)
    ]
    assert found.total.elements == 15
    assert found.stored_bytes == 15 * dtype.itemsize


def test_shared_storages_count_once(save):
    whole = torch.zeros(1000, 1000)
    found = save({"whole": whole, "again": whole, "view": whole[:2, :2], "transposed": whole.t()})
    assert found.total.elements == 10**6
    assert found.total.tensors == 4
    assert found.stored_bytes == 4 * 10**6
    assert len({tensor.storage for tensor in found.tensors}) == 1


def test_a_view_stores_all_that_it_views(save):
    found = save({"view": torch.zeros(1000, 1000)[:2, :2], "repeated": torch.ones(1).expand(50)})
    assert by_name(found)["view"].bytes == 16
    assert found.total.elements == 4 + 1
    assert found.stored_bytes == 4_000_004
    assert "3.81 MiB are stored for 20 B of tensors" in found.notes[0]


def test_parameters_scalars_and_empty_tensors(save):
    found = save({"p": nn.Parameter(torch.ones(2, 3)), "scalar": torch.tensor(1.0), "empty": torch.zeros(0, 7)})
    assert [(tensor.shape, tensor.bytes) for tensor in found.tensors] == [((2, 3), 24), ((), 4), ((0, 7), 0)]


def test_other_kinds_of_tensors(save):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(4, 2), 0.1, 0, torch.qint8)
    found = save({"q": quantized, "meta": torch.zeros(3, 4, device="meta"), "sparse": torch.eye(3).to_sparse()})
    tensors = by_name(found)
    assert (tensors["q"].dtype, tensors["q"].bytes) == ("qint8", 8)
    assert (tensors["meta"].shape, tensors["meta"].bytes, tensors["meta"].kind) == ((3, 4), 0, "meta")
    assert tensors["sparse.(arguments).1.0"].shape == (2, 3)  # indices
    assert tensors["sparse.(arguments).1.1"].bytes == 12  # values


def test_a_tensor_alone(save):
    assert [(tensor.path, tensor.shape) for tensor in save(torch.ones(3)).tensors] == [((), (3,))]


def test_a_whole_module_has_the_names_of_its_state_dict(save):
    model = Tied()
    found = save(model)
    assert {tensor.name for tensor in found.tensors} == set(model.state_dict())
    assert found.calls["torch.nn.modules.linear.Linear"] == 9
    assert values(found)["layers.0.up.out_features"] == 64


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 3)).save(tmp_path / "script.pt")
    found = summarize(tmp_path / "script.pt")
    assert found.format == "TorchScript"
    assert {tensor.name: tensor.shape for tensor in found.tensors} == {"weight": (3, 2), "bias": (3,)}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_values_of_many_types(save, protocol):
    looped = [1, {}]
    looped[1]["self"] = looped
    content = {
        "path": pathlib.PurePosixPath("/a/b"),
        "size": torch.Size([1, 2]),
        "set": {3},
        "frozen": frozenset({4}),
        "deque": collections.deque([1, 2], 5),
        "default": collections.defaultdict(int, {"a": 1}),
        "counter": collections.Counter("aab"),
        "bytes": b"abc",
        "complex": 1 + 2j,
        "nan": float("nan"),
        "huge": 1 << 70000,
        "long": "x" * 5000,
        "many": list(range(1000)),
        "enum": Backend.FLASH,
        "class": Options.Inner,
        "function": json.dumps,
        "simple": collections.OrderedDict(a=None),
        ("a", 1): True,
        7: {},
        "cycle": looped,
    }
    found = save(content, pickle_protocol=protocol)
    named = values(found)
    assert named["path"] == "/a/b"
    assert named["size"] == (1, 2)
    assert named["set"] == (3,)
    assert named["frozen"] == (4,)
    assert named["deque"] == (1, 2) or named["deque.(arguments).1"] == 5
    assert named["default.a"] == 1
    assert named["bytes"] == "<3 bytes>"
    assert named["nan"] == "nan"
    assert named["huge"] == "<integer of 70001 bits>"
    assert len(named["long"]) == 1000
    assert {value.name: value.length for value in found.values}["long"] == 5000
    assert len(named["many"]) == 100
    assert {value.name: value.length for value in found.values}["many"] == 1000
    assert "Backend" in next(value for value in found.values if value.name == "enum").type + str(named["enum"])
    assert named["class"].endswith("Options.Inner")
    assert named["function"] == "json.dumps"
    assert named["simple.a"] is None
    assert named["('a', 1)"] is True
    assert named["cycle.1.self"] == "<refers to itself>"
    assert {value.name: value.length for value in found.values}["7"] == 0
    assert found.warnings == ()
    assert Checkpoint.from_mapping(json.loads(found.to_json())) == found


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numpy(tmp_path, protocol):
    content = {
        "array": np.arange(6.0).reshape(2, 3),
        "ints": np.zeros(3, ">i2"),
        "number": np.float64(1.5),
        "flag": np.bool_(True),
        "complex": np.complex64(1 + 2j),
        "text": np.array(["a", "bc"]),
        "state": np.random.RandomState(1).get_state(),
    }
    torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol)
    found = summarize(tmp_path / "a.pt")
    tensors = by_name(found)
    assert (tensors["array"].shape, tensors["array"].dtype, tensors["array"].bytes) == ((2, 3), "float64", 48)
    assert (tensors["ints"].dtype, tensors["ints"].bytes) == ("int16", 6)
    assert tensors["state.1"].shape == (624,)
    assert values(found)["number"] == 1.5
    assert values(found)["flag"] is True
    assert values(found)["complex"] == "(1+2j)"
    assert found.warnings == ()


def test_a_plain_pickle_of_tensors(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"w": torch.ones(2, 2), "h": torch.ones(3, dtype=torch.half), "x": [1]}))
    found = summarize(path)
    assert found.format == "pickle"
    assert {t.name: (t.shape, t.dtype) for t in found.tensors} == {"w": ((2, 2), "float32"), "h": ((3,), "float16")}
    assert found.stored_bytes == 16 + 6


def test_a_file_without_checksums(save):
    torch.serialization.set_crc32_options(False)
    try:
        assert save({"w": torch.ones(3)}).total.bytes == 12
    finally:
        torch.serialization.set_crc32_options(True)


def test_damaged_bytes_in_the_table_are_noticed(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"weight": torch.ones(3)}, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"weight", b"weighs", 1))
    with pytest.raises(CheckpointError, match="Bad CRC-32"):
        summarize(path)


def test_a_storage_that_is_missing_is_noticed(tmp_path):
    import zipfile

    torch.save({"w": torch.ones(3), "v": torch.ones(2)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as whole, zipfile.ZipFile(tmp_path / "b.pt", "w") as part:
        for name in whole.namelist():
            if not name.endswith("data/1"):
                part.writestr(name, whole.read(name))
    (damage,) = summarize(tmp_path / "b.pt").damage
    assert damage == "The data of 1 of the 2 storages in 'b.pt' is missing or too short; the first is data/1."


@pytest.fixture(scope="module")
def two_formats(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    content = {"w": torch.ones(40, 50), "lr": 0.1}
    torch.save(content, folder / "zip.pt")
    torch.save(content, folder / "stream.pt", _use_new_zipfile_serialization=False)
    return [(folder / name).read_bytes() for name in ("zip.pt", "stream.pt")]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_cut_file_is_refused_at_every_length(two_formats, tmp_path, data):
    content = data.draw(st.sampled_from(two_formats))
    path = tmp_path / "cut.pt"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(CheckpointError, match=r"cut\.pt' (cannot be read|is empty|is not a checkpoint)"):
        summarize(path)


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_never_gives_a_traceback(two_formats, tmp_path, data):
    content = bytearray(data.draw(st.sampled_from(two_formats)))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, min(len(content), 700) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    try:
        found = summarize(path)
    except CheckpointError:
        return
    assert Checkpoint.from_mapping(json.loads(found.to_json())) == found


def test_torch_is_not_imported(tmp_path):
    torch.save({"w": torch.ones(3), "n": np.ones(2)}, tmp_path / "a.pt")
    script = (
        "import sys\nfrom gnomon.ckpt.summarize import summarize\nsummarize(sys.argv[1])\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.pt")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_dtensors_and_their_local_part(tmp_path):
    script = """
import os, sys, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
torch.save({"d": distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])}, sys.argv[1])
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "d.pt")], check=True, capture_output=True, timeout=120)
    found = summarize(tmp_path / "d.pt")
    (tensor,) = found.tensors
    assert (tensor.shape, tensor.bytes, tensor.kind) == ((8, 4), 128, "DTensor")
    assert dict(found.calls) == {}
