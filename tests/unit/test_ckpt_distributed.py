"""Distributed checkpoints whose table of contents and data files do not agree."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

from gnomon.ckpt import cover
from gnomon.ckpt.cover import Chunk, Coverage
from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path):
    """A distributed checkpoint: two tensors, one without elements, one without dimensions, and an object."""
    state = {"w": torch.ones(4, 2), "b": torch.ones(3), "none": torch.ones(0, 3), "one": torch.ones(()), "step": 7}
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    return tmp_path / "dcp"


def rewrite(folder, change) -> None:
    """Change the table of contents of a checkpoint."""
    path = folder / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def move_to(file, *names):
    """Return a change that says that the data of some names, or of all, is in another file."""

    def change(metadata):
        for index, info in metadata.storage_data.items():
            if not names or index.fqn in names:
                metadata.storage_data[index] = dataclasses.replace(info, relative_path=file)

    return change


def test_a_whole_checkpoint_is_not_damaged(folder) -> None:
    found = summarize(folder)
    assert (found.damage, len(found.tensors)) == ((), 4)


@pytest.mark.parametrize("name", ["w", "one", "step"])
def test_a_tensor_or_object_that_lies_nowhere(folder, name) -> None:
    def change(metadata):
        metadata.storage_data = {index: info for index, info in metadata.storage_data.items() if index.fqn != name}

    rewrite(folder, change)
    (damage,) = summarize(folder).damage
    assert damage == f"The table of contents does not say where these are stored, in whole or in part: {name}."
    wanted = {"w": torch.ones(4, 2), "one": torch.ones(()), "step": 0}[name]
    with pytest.raises(CheckpointException, match="KeyError"):
        dcp.load({name: wanted}, checkpoint_id=folder, no_dist=True)


def test_a_piece_that_lies_nowhere(folder) -> None:
    def change(metadata):
        info = metadata.storage_data.pop(MetadataIndex("w", torch.Size([0, 0])))
        metadata.storage_data[MetadataIndex("w", torch.Size([1, 0]))] = info

    rewrite(folder, change)
    assert "stored, in whole or in part: w." in summarize(folder).damage[0]


def test_pieces_without_elements_need_no_place(folder) -> None:
    def change(metadata):
        metadata.storage_data = {index: info for index, info in metadata.storage_data.items() if index.fqn != "none"}
        metadata.state_dict_metadata["w"].chunks.append(ChunkStorageMetadata(torch.Size([4, 0]), torch.Size([0, 2])))

    rewrite(folder, change)
    assert summarize(folder).damage == ()


def test_a_data_file_that_is_missing(folder) -> None:
    rewrite(folder, move_to("sub/__0_0.distcp", "w", "step"))
    found = summarize(folder)
    assert found.damage == ("The data file 'sub/__0_0.distcp' is missing; its tensors cannot be loaded: w, step.",)
    assert {value.name: value.type for value in found.values} == {"step": "object"}


def test_a_data_file_in_a_folder_below(folder) -> None:
    rewrite(folder, move_to("sub/data.distcp"))
    (folder / "sub").mkdir()
    (folder / "__0_0.distcp").rename(folder / "sub" / "data.distcp")
    found = summarize(folder)
    assert found.damage == ()
    assert [entry.path for entry in found.files] == [".metadata", "sub/data.distcp"]
    assert {value.name: value.value for value in found.values} == {"step": 7}


@pytest.mark.parametrize("outside", ["../data.distcp", "sub/../../data.distcp", "absolute"])
def test_a_data_file_outside_is_not_followed(folder, outside) -> None:
    (folder / "sub").mkdir()
    (folder / "__0_0.distcp").rename(folder.parent / "data.distcp")
    name = str(folder.parent / "data.distcp") if outside == "absolute" else outside
    rewrite(folder, move_to(name))
    found = summarize(folder)
    (damage,) = found.damage
    assert damage.startswith(f"The data file '{name}' lies outside of the folder, where gnomon does not look: w, b")
    assert [entry.path for entry in found.files] == [".metadata"]
    assert {value.name: value.type for value in found.values} == {"step": "object"}


def half(metadata):
    metadata.state_dict_metadata["w"].chunks = [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([2, 2]))]


def without_pieces(metadata):
    metadata.state_dict_metadata["w"].chunks = []


def twice_the_same_half(metadata):
    info = metadata.storage_data[MetadataIndex("w", torch.Size([0, 0]))]
    metadata.storage_data[MetadataIndex("w", torch.Size([0, 1]))] = info
    metadata.state_dict_metadata["w"].chunks = [
        ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([2, 2])),
        ChunkStorageMetadata(torch.Size([0, 1]), torch.Size([4, 1])),
    ]


@pytest.mark.parametrize("change", [half, without_pieces, twice_the_same_half])
def test_pieces_that_do_not_cover_their_tensor(folder, change) -> None:
    rewrite(folder, change)
    found = summarize(folder)
    assert found.damage == ("The pieces of these tensors do not cover them: w.",)
    assert len(found.tensors) == 4


def test_names_that_print_alike_are_both_listed(folder) -> None:
    dcp.save({"a\n": torch.ones(1), "a\\n": torch.ones(2)}, checkpoint_id=folder.parent / "b", no_dist=True)
    found = summarize(folder.parent / "b")
    assert {tensor.name: tensor.shape for tensor in found.tensors} == {"a\\n": (1,), "a\\n#2": (2,)}
    assert found.damage == ()


# Whether pieces fill a tensor


@st.composite
def pieces(draw):
    """Return a shape and pieces in it."""
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=3)))
    chunks = []
    for _ in range(draw(st.integers(0, 8))):
        offsets = tuple(draw(st.integers(0, size - 1)) for size in shape)
        chunks.append(Chunk(offsets, tuple(draw(st.integers(0, 4)) for _ in shape)))
    return shape, chunks


@given(pieces())
def test_pieces_fill_a_tensor_when_each_element_is_in_one(drawn) -> None:
    shape, chunks = drawn
    filled = np.zeros(shape, bool)
    for offsets, sizes in chunks:
        filled[tuple(slice(begin, begin + size) for begin, size in zip(offsets, sizes, strict=True))] = True
    assert Coverage().fills(chunks, shape) == filled.all()


def test_a_grid_of_many_pieces_is_quick(monkeypatch) -> None:
    monkeypatch.setattr(cover, "MAX_STEPS", 12_000)
    grid = [Chunk(offsets, (2, 3)) for offsets in itertools.product(range(0, 100, 2), range(0, 150, 3))]
    assert Coverage().fills(grid[::-1], (100, 150))
    assert not Coverage().fills(grid[:-1], (100, 150))


def test_scattered_pieces_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(cover, "MAX_STEPS", 10_000)
    stairs = [Chunk((number, 0), (200, 1)) for number in range(200)] + [Chunk((0, 1), (400, 1))]
    with pytest.raises(CheckpointError, match="too scattered"):
        Coverage().fills(stairs, (200, 2))
    assert Coverage().fills([], (0, 3))
    assert not Coverage().fills([Chunk((0,), (3,))], (3, 3))
