"""Folders that frameworks leave behind, and paths that hold no checkpoint."""

import json
import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed.checkpoint as dcp

from gnomon.ckpt.summarize import summarize
from gnomon.errors import CheckpointError
from gnomon.train.tensor_store import save_tensors

pytestmark = pytest.mark.filterwarnings("ignore")


def names(checkpoint):
    return [tensor.name for tensor in checkpoint.tensors]


@pytest.fixture
def distributed(tmp_path):
    state = {"model": {"a.w": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.ones(())}, "step": 7, "ids": [1, 2]}
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    return tmp_path / "dcp"


def test_a_distributed_checkpoint(distributed):
    found = summarize(distributed)
    assert found.format == "distributed checkpoint"
    assert {tensor.path: (tensor.shape, tensor.dtype) for tensor in found.tensors} == {
        ("model", "a.w"): ((2, 3), "bfloat16"),
        ("model", "b"): ((), "float32"),
    }
    assert {value.name: value.value for value in found.values} == {"step": 7, "ids": (1, 2)}
    assert [entry.path for entry in found.files] == [".metadata", "__0_0.distcp"]
    assert (found.total.bytes, found.notes, found.warnings, dict(found.calls)) == (16, (), (), {})


def test_data_files_that_are_cut_off_or_missing(distributed):
    data = distributed / "__0_0.distcp"
    size = data.stat().st_size
    with data.open("r+b") as file:
        file.truncate(size - 1)
    (damage,) = summarize(distributed).damage
    assert (
        damage == f"The data file '__0_0.distcp' is cut off: it should have at least {size} bytes and has {size - 1}."
    )
    data.unlink()
    found = summarize(distributed)
    assert found.damage == (
        "The data file '__0_0.distcp' is missing; its tensors cannot be loaded: model.a.w, model.b, step, ids.",
    )
    assert len(found.tensors) == 2


def test_a_folder_without_its_table_says_so(distributed):
    (distributed / ".metadata").unlink()
    with pytest.raises(CheckpointError, match=r"whose \.metadata is missing beside '__0_0\.distcp'"):
        summarize(distributed)


def test_a_part_alone_leads_to_its_folder(distributed):
    with pytest.raises(CheckpointError, match=r"is a part of a distributed checkpoint. Give its folder"):
        summarize(distributed / "__0_0.distcp")


@pytest.mark.parametrize("content", [b"", b"nope", pickle.dumps([1]), pickle.dumps({"state_dict_metadata": 1})])
def test_a_damaged_table_of_contents(distributed, content):
    (distributed / ".metadata").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\.metadata' cannot be read as a checkpoint"):
        summarize(distributed)


def test_the_table_is_refused_at_every_length(distributed):
    path = distributed / ".metadata"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            summarize(distributed)


def test_an_object_that_runs_something_is_named(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'victim'}",)

    dcp.save({"w": torch.ones(1), "evil": Evil()}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    (warning,) = summarize(tmp_path / "dcp").warnings
    assert warning.startswith("would call posix.system('touch ")
    assert not (tmp_path / "victim").exists()


def test_shards_of_several_ranks(tmp_path):
    """What FSDP writes: every rank a piece of each tensor."""
    script = """
import os, sys, torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=int(sys.argv[2]), world_size=2)
mesh = init_device_mesh("cpu", (2,))
dcp.save({"w": distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])}, checkpoint_id=f"{sys.argv[1]}/dcp")
dist.barrier()  # a rank that ends early breaks the connection that the other one still uses
dist.destroy_process_group()
"""
    ranks = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), str(rank)]) for rank in range(2)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    found = summarize(tmp_path / "dcp")
    (tensor,) = found.tensors
    assert (tensor.shape, tensor.bytes, tensor.kind) == ((8, 4), 128, "tensor in 2 pieces")
    assert [entry.path for entry in found.files] == [".metadata", "__0_0.distcp", "__1_0.distcp"]


def test_a_run_directory_of_gnomon(tmp_path):
    (tmp_path / "env.json").write_text("{}")
    for step in (5, 10):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        save_tensors({"model": {"w": torch.ones(step)}}, folder, distributed=False)
        (folder / "state.json").write_text(json.dumps({"schema_version": 1, "step": step, "files": {}}))
    (tmp_path / "checkpoints" / ".step-000015.tmp").mkdir()
    for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "step-000010"):
        found = summarize(path)
        assert found.path == str(tmp_path / "checkpoints" / "step-000010")
        assert [(tensor.name, tensor.shape) for tensor in found.tensors] == [("model.w", (10,))]
        assert {value.name: value.value for value in found.values}["state.json.step"] == 10
    assert "is the newest of 2 checkpoint(s)" in summarize(tmp_path).notes[0]


def test_megatron(tmp_path):
    for rank in (0, 1):
        folder = tmp_path / "iter_0000100" / f"mp_rank_0{rank}"
        folder.mkdir(parents=True)
        torch.save({"model": {"w": torch.ones(rank + 1)}, "iteration": 100}, folder / "model_optim_rng.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("100\n")
    found = summarize(tmp_path)
    assert names(found) == [f"mp_rank_0{rank}/model_optim_rng.pt.model.w" for rank in (0, 1)]
    assert found.tensors[0].path == ("mp_rank_00/model_optim_rng.pt", "model", "w")
    assert found.notes == ("'latest_checkpointed_iteration.txt' names 'iter_0000100'.",)
    assert found.format == "2 files"
    assert found.total.bytes == 12


def test_megatron_distributed(tmp_path):
    folder = tmp_path / "iter_0000007"
    dcp.save({"w": torch.ones(2)}, checkpoint_id=folder, no_dist=True)
    torch.save({"args": {"lr": 0.1}}, folder / "common.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("7")
    found = summarize(tmp_path)
    assert names(found) == ["w"]
    assert {value.name: value.value for value in found.values} == {"common.pt.args.lr": 0.1}


def test_deepspeed(tmp_path):
    folder = tmp_path / "global_step10"
    folder.mkdir()
    torch.save({"module": {"w": torch.ones(2)}}, folder / "mp_rank_00_model_states.pt")
    torch.save({"optimizer_state_dict": {"m": torch.ones(4)}}, folder / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (tmp_path / "latest").write_text("global_step10")
    assert names(summarize(tmp_path)) == [
        "mp_rank_00_model_states.pt.module.w",
        "zero_pp_rank_0_mp_rank_00_optim_states.pt.optimizer_state_dict.m",
    ]


@pytest.mark.parametrize("text", ["nowhere", "../../etc", "", "/"])
def test_a_pointer_to_nowhere(tmp_path, text):
    (tmp_path / "latest").write_text(text)
    with pytest.raises(CheckpointError, match="which is no folder beside it"):
        summarize(tmp_path)


@pytest.mark.parametrize("name", ["m.pt", "weights"])
def test_a_pointer_to_a_file(tmp_path, name):
    torch.save({"w": torch.ones(2)}, tmp_path / name)
    torch.save({"v": torch.ones(3)}, tmp_path / "other.pt")
    (tmp_path / "latest").write_text(f"{name}\n")
    found = summarize(tmp_path)
    assert (found.path, names(found)) == (str(tmp_path / name), ["w"])
    assert found.notes == (f"'latest' names '{name}'.",)


def test_a_pointer_to_itself(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    (tmp_path / "latest").write_text("latest")
    with pytest.raises(CheckpointError, match="nor another file"):
        summarize(tmp_path)


def test_a_file_counts_once_whatever_links_to_it(tmp_path):
    (tmp_path / "step1").mkdir()
    torch.save({"w": torch.ones(2)}, tmp_path / "step1" / "m.pt")
    (tmp_path / "latest").symlink_to("step1")
    (tmp_path / "a.pt").symlink_to("step1/m.pt")
    (tmp_path / "self").symlink_to(".")
    torch.save({"v": torch.ones(3)}, tmp_path / "z.pt")
    found = summarize(tmp_path)
    assert [entry.path for entry in found.files] == ["step1/m.pt", "z.pt"]
    assert found.total.bytes == 20
    assert summarize(tmp_path / "latest").total.bytes == 8


def test_links_to_shards_count_once(tmp_path):
    (tmp_path / "blobs").mkdir()
    torch.save({"w": torch.ones(2)}, tmp_path / "blobs" / "x")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    for name in ("a.bin", "model-1.bin"):  # as in the cache of Hugging Face, where one file may have two names
        (folder / name).symlink_to("../blobs/x")
    (folder / "model.bin.index.json").write_text(json.dumps({"weight_map": {"w": "model-1.bin"}}))
    found = summarize(folder)
    assert (names(found), [entry.path for entry in found.files]) == (["w"], ["model-1.bin"])


def test_files_of_other_kinds_are_left_out(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    (tmp_path / "tokens.bin").write_bytes(b"\1\2\3\4" * 100)
    found = summarize(tmp_path)
    assert names(found) == ["model.pt.w"]
    assert "tokens.bin' is not a checkpoint" in found.notes[0]


# What is no checkpoint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text\n", "is not a checkpoint: it starts with b'hello, t'"),
        (b"\x80", "cannot be read"),
        (b"PK\x03\x04", "starts as a zip archive but is cut off"),
        (b"\0" * 257 + b"ustar", "is a tar archive"),
        (b"GGUF\3\0\0\0", "is not a checkpoint: it starts with b'GGUF"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, words):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        summarize(tmp_path / "a.pt")


def test_another_zip_archive(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("word/document.xml", "x")
    with pytest.raises(CheckpointError, match=r"not one of PyTorch: it has no data.pkl"):
        summarize(tmp_path / "a.pt")


def test_a_missing_path(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no '.*nope\.pt'\. Give a checkpoint"):
        summarize(tmp_path / "nope.pt")


def test_a_folder_without_a_checkpoint(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(CheckpointError, match=r"holds no checkpoint: neither .metadata nor"):
        summarize(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="is not a regular file"):
        summarize(tmp_path / "pipe.pt")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.pt"))
        with pytest.raises(CheckpointError, match="is not a regular file"):
            summarize(tmp_path / "s.pt")


def test_permission_denied(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    torch.save({}, path)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root may read everything
        monkeypatch.setattr("pathlib.Path.open", deny)
    with pytest.raises(CheckpointError, match=r"a\.pt' cannot be read: Permission denied"):
        summarize(path)


def deny(path, *arguments):
    """A fake of `Path.open` for a user who may not read."""
    raise PermissionError(13, "Permission denied", str(path))
