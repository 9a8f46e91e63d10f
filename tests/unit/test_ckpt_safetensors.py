"""Safetensors files and sharded checkpoints."""

import json
import struct

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load as load_numpy
from safetensors.torch import save_file

from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError

WEIGHTS = {
    "a.weight": torch.ones(4, 8, dtype=torch.bfloat16),
    "b": torch.ones((), dtype=torch.int64),
    "c": torch.zeros(0, 3),
    "d": torch.zeros(5, dtype=torch.float8_e4m3fn),
    "e": torch.zeros(2, dtype=torch.bool),
}


def with_header(header, data=b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_its_own_library_wrote(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(WEIGHTS, path, metadata={"format": "pt"})
    found = summarize(path)
    assert found.format == "safetensors"
    assert {tensor.name: tensor.shape for tensor in found.tensors} == {k: tuple(v.shape) for k, v in WEIGHTS.items()}
    assert {tensor.name: f"torch.{tensor.dtype}" for tensor in found.tensors} == {
        name: str(tensor.dtype) for name, tensor in WEIGHTS.items()
    }
    assert found.total.bytes == 64 + 8 + 0 + 5 + 2 == found.stored_bytes
    assert found.total.elements == 32 + 1 + 0 + 5 + 2
    assert [(value.name, value.value) for value in found.values] == [("__metadata__.format", "pt")]


def test_without_a_suffix_it_is_known_by_its_start(tmp_path):
    save_file(WEIGHTS, tmp_path / "blob")
    assert summarize(tmp_path / "blob").format == "safetensors"


def test_a_hundred_gibibytes_are_not_read(tmp_path):
    size = 100 * 2**30
    path = tmp_path / "huge.safetensors"
    header = with_header({"w": entry("BF16", (size // 2,), (0, size))})
    path.write_bytes(header)
    with path.open("r+b") as file:
        file.truncate(len(header) + size)
    assert summarize(path).total.bytes == size


BROKEN = {
    "dtype": ({"w": entry("F33")}, "has the dtype 'F33', which safetensors does not define"),
    "dtype type": ({"w": {**entry(), "dtype": [1]}}, "which safetensors does not define"),
    "too short": ({"w": entry(shape=(2,))}, "'w' needs 8 bytes and has 4"),
    "backwards": ({"w": entry(shape=(0,), offsets=(4, 0))}, "'w' needs 0 bytes and has -4"),
    "negative": ({"w": entry(shape=(-1,))}, "shape or data_offsets of 'w'"),
    "fraction": ({"w": entry(shape=(0.5,))}, "shape or data_offsets of 'w'"),
    "true": ({"w": entry(shape=(True,))}, "shape or data_offsets of 'w'"),
    "huge": ({"w": entry(shape=(2**40, 2**40))}, "shape or data_offsets of 'w'"),
    "one offset": ({"w": entry(offsets=(0,))}, "shape or data_offsets of 'w'"),
    "gap": ({"w": entry(offsets=(4, 8))}, "the data of 'w' does not follow"),
    "overlap": ({"v": entry(), "w": entry()}, "the data of 'w' overlaps"),
    "cut off": ({"w": entry(shape=(2,), offsets=(0, 8))}, "8 bytes of tensor data should follow its header, 4 do"),
    "rest": ({"w": entry(shape=(0,), offsets=(0, 0))}, "4 bytes after its tensors belong to none"),
    "a list": ([1], "it is not a mapping"),
    "no entry": ({"w": 1}, "'w' is not described by a mapping"),
    "metadata": ({"__metadata__": 1}, "__metadata__ is not a mapping"),
    "no JSON": (b"{nope", "is not the JSON of safetensors"),
    "no text": (b"{\xff", "is not the JSON of safetensors"),
    "nesting": (b"[" * 200_000, "is not the JSON of safetensors"),
    "digits": (b'{"w":' + b"9" * 10_000 + b"}", "is not the JSON of safetensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_headers(tmp_path, name):
    header, words = BROKEN[name]
    content = with_header(header, b"\0" * 4)
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        summarize(tmp_path / "a.safetensors")
    with pytest.raises(SafetensorError):
        load_numpy(content)


@pytest.mark.parametrize("length", [2**63, 100_000_001])
def test_a_header_without_end(tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(CheckpointError, match="safetensors allows 100000000"):
        summarize(tmp_path / "a.safetensors")


def test_names_cannot_steer_the_terminal(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(with_header({"\x1b[2J\u202ew": entry()}, b"\0" * 4))
    assert summarize(tmp_path / "a.safetensors").tensors[0].name == "\\x1b[2J\\u202ew"


@pytest.mark.parametrize("names", [("a\n", "a\\n"), ("x" * 1200 + "1", "x" * 1200 + "2"), ("a\n", "a\\n", "a\\n#2")])
def test_names_that_print_alike_are_told_apart(tmp_path, names):
    header, size = {}, 0
    for index, name in enumerate(names):
        header[name] = entry(shape=(index + 1,), offsets=(size, size + 4 * (index + 1)))
        size += 4 * (index + 1)
    header["__metadata__"] = dict.fromkeys(names, "v")
    (tmp_path / "a.safetensors").write_bytes(with_header(header, b"\0" * size))
    found = summarize(tmp_path / "a.safetensors")
    assert found.total.bytes == size
    assert len({tensor.name for tensor in found.tensors}) == len(names) == len(found.tensors)
    assert len({value.name for value in found.values}) == len(names)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.safetensors"
    save_file(WEIGHTS, path)
    return path.read_bytes()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_cut_file_is_refused_at_every_length(whole, tmp_path, data):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors' (cannot be read|is empty)"):
        summarize(path)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.lists(st.integers(0, 4), max_size=3), max_size=5))
def test_numpy_arrays_of_any_shape(tmp_path_factory, shapes):
    from safetensors.numpy import save

    shapes.pop("__metadata__", None)
    path = tmp_path_factory.mktemp("any") / "a.safetensors"
    path.write_bytes(save({name: np.zeros(shape, np.float16) for name, shape in shapes.items()}))
    found = summarize(path)
    assert sorted(tensor.shape for tensor in found.tensors) == sorted(map(tuple, shapes.values()))
    assert found.total.bytes == 2 * sum(int(np.prod(shape)) for shape in shapes.values())


# Sharded checkpoints


@pytest.fixture
def sharded(tmp_path):
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.ones(4)}, tmp_path / "model-2.safetensors")
    index = {
        "metadata": {},
        "weight_map": {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
def test_shards_are_one_checkpoint(sharded, name):
    found = summarize(sharded / name)
    assert [tensor.name for tensor in found.tensors] == ["a", "b", "c"]
    assert found.total.bytes == 36
    assert [entry.path for entry in found.files] == ["model-1.safetensors", "model-2.safetensors"]
    assert found.notes == ()


def test_shards_beside_other_files(sharded):
    torch.save({"state": {0: {"step": torch.ones(())}}}, sharded / "optimizer.pt")
    found = summarize(sharded)
    assert [tensor.name for tensor in found.tensors] == [
        *("model.safetensors.index.json.a", "model.safetensors.index.json.b", "model.safetensors.index.json.c"),
        "optimizer.pt.state.0.step",
    ]
    assert found.format == "3 files"


def test_shards_of_torch_save(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"b": torch.ones(3)}, tmp_path / "pytorch_model-2.bin")
    index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    found = summarize(tmp_path)
    assert [tensor.name for tensor in found.tensors] == ["a", "b"]
    assert len({tensor.storage for tensor in found.tensors}) == 2  # each file has its own storage 0
    assert found.total.bytes == 20


def rewrite(folder, **changes):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= changes
    path.write_text(json.dumps(index))


def test_a_tensor_in_another_shard_than_the_index_says(sharded):
    rewrite(sharded, a="model-2.safetensors")
    found = summarize(sharded)
    assert found.damage == (
        "'model.safetensors.index.json' leads to the wrong shard for a (in model-1.safetensors, not in "
        "model-2.safetensors).",
    )
    assert found.total.bytes == 36


@pytest.mark.parametrize("size", [2, 5])
def test_a_tensor_in_two_shards_counts_once(sharded, size):
    save_file({"c": torch.ones(4), "a": torch.ones(size)}, sharded / "model-2.safetensors")
    found = summarize(sharded)
    assert [(tensor.name, tensor.shape) for tensor in found.tensors] == [("a", (2,)), ("b", (3,)), ("c", (4,))]
    assert found.total.bytes == 36
    told = "a (of model-1.safetensors, also in model-2.safetensors)."
    if size == 2:
        assert (found.notes, found.damage) == ((f"Several shards hold the same tensor, which counts once: {told}",), ())
    else:
        assert found.damage == (f"Several shards hold the same tensor, and differ there: {told}",)


def test_tensors_that_the_index_does_not_name(sharded):
    save_file({"a": torch.ones(2), "b": torch.ones(3), "x": torch.ones(1)}, sharded / "model-1.safetensors")
    save_file({"c": torch.ones(4), "x": torch.ones(1)}, sharded / "model-2.safetensors")
    found = summarize(sharded)
    assert sorted(tensor.name for tensor in found.tensors) == ["a", "b", "c", "x"]
    assert found.notes == (
        "The shards hold 1 tensor(s) that 'model.safetensors.index.json' does not name: x.",
        "Several shards hold the same tensor, which counts once: x (of model-1.safetensors, also in "
        "model-2.safetensors).",
    )


@pytest.mark.parametrize(("size", "notes"), [(36, 0), (36.0, 0), (999, 1), ("36", 0)])
def test_the_total_size_of_an_index(sharded, size, notes):
    path = sharded / "model.safetensors.index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metadata": {"total_size": size}}))
    found = summarize(sharded)
    assert len(found.notes) == notes
    assert found.damage == ()
    if notes:
        assert found.notes[0].endswith("gives a total_size of 999 bytes; its tensors have 36.")


def test_long_names_in_shards_are_compared(tmp_path):
    names = ["x" * 1200 + str(number) for number in range(3)]
    save_file({names[0]: torch.ones(1), names[1]: torch.ones(2)}, tmp_path / "1.safetensors")
    save_file({names[2]: torch.ones(3)}, tmp_path / "2.safetensors")
    index = {"weight_map": {name: f"{1 + number // 2}.safetensors" for number, name in enumerate(names)}}
    (tmp_path / "a.index.json").write_text(json.dumps(index))
    found = summarize(tmp_path)
    assert (found.damage, found.notes) == ((), ())
    assert found.total.bytes == 24


def test_missing_shards_are_named(sharded):
    (sharded / "model-2.safetensors").unlink()
    for path, kind in ((sharded, "safetensors"), (sharded / "model.safetensors.index.json", "1 shard")):
        found = summarize(path)
        assert [tensor.name for tensor in found.tensors] == ["a", "b"]
        assert found.format == kind
        assert found.notes == ()
        assert found.damage == (
            "'model.safetensors.index.json' names 2 files, of which 1 is missing: 'model-2.safetensors'; these tensors "
            "cannot be loaded: c. Copy or download what is missing.",
        )
    (sharded / "model-1.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"None of the files .*: 'model-1\.safetensors', 'model-2\.safetensors'\."
    ):
        summarize(sharded)


@pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
def test_a_shard_of_the_series_that_the_index_does_not_name(tmp_path, name):
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    save_file({"a": torch.ones(2)}, tmp_path / shards[0])
    save_file({"b": torch.ones(3)}, tmp_path / shards[1])
    index = {"weight_map": {"a": shards[0], "b": shards[0]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = summarize(tmp_path / name)
    assert [tensor.name for tensor in found.tensors] == ["a", "b"]
    assert found.damage == (
        f"'model.safetensors.index.json' leads to the wrong shard for b (in {shards[1]}, not in {shards[0]}).",
    )
    assert found.notes == ()


def test_shards_of_another_series_are_not_of_this_one(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model-00001-of-00001.safetensors")
    save_file({"a": torch.ones(3)}, tmp_path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = summarize(tmp_path / "model.safetensors.index.json")
    assert ([tensor.shape for tensor in found.tensors], found.damage) == ([(2,)], ())


def test_a_tensor_that_no_shard_holds(sharded):
    rewrite(sharded, d="model-1.safetensors")
    found = summarize(sharded)
    assert found.damage == ("'model.safetensors.index.json' names 1 tensor(s) that no shard holds: d.",)
    assert found.total.bytes == 36


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", ".."])
def test_an_index_leads_nowhere_else(sharded, shard):
    rewrite(sharded, d=shard)
    with pytest.raises(CheckpointError, match=r"is not a file beside it|are missing"):
        summarize(sharded)


@pytest.mark.parametrize("text", ["[]", "{}", '{"weight_map": 1}', "nope", '{"weight_map": []}'])
def test_what_is_no_index(tmp_path, text):
    (tmp_path / "a.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="is not an index of shards"):
        summarize(tmp_path / "a.index.json")
