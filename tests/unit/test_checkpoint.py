"""Checkpoints: only complete ones are seen, damaged ones are passed over, and nothing in them is run."""

import errno
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.errors import CheckpointError, CheckpointWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.seeds import rng_state, set_rng_state
from gnomon.strategy.single import SingleStrategy
from gnomon.train import checkpoint_files as files
from gnomon.train import tensor_store
from gnomon.train.checkpoint import Checkpointer
from gnomon.train.retention import Retention

IDENTITY = {"seed": 0, "model": {"hidden_size": 32}, "workload": {"seq_len": 64}}


class Run:
    """A model after a few steps, and its checkpoints."""

    def __init__(self, directory: Path, steps: int = 0, keep: int = 2, identity: dict | None = None) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
        self.optimizer = torch.optim.AdamW(self.module.parameters(), lr=0.1, fused=True)
        strategy = SingleStrategy(RankEnvironment(), torch.device("cpu"))
        self.strategy = strategy
        self.checkpointer = Checkpointer(directory, strategy, Retention(newest=keep), identity or IDENTITY)
        self.step = 0
        for _ in range(steps):
            self.take_step()

    def take_step(self) -> None:
        self.module(torch.randn(2, 4)).square().sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def save(self) -> Path:
        return self.checkpointer.save(self.step, self.tensors(), {"loader": {"position": self.step}})

    def restore(self) -> dict | None:
        tensors = self.tensors()
        state = self.checkpointer.restore(tensors)
        if state is not None:
            self.strategy.load_state(self.module, self.optimizer, tensors)
            set_rng_state({**rng_state(), **tensors.get("random", {}).get("0", {})})
        return state

    def tensors(self) -> dict:
        return {**self.strategy.state(self.module, self.optimizer), "random": {"0": rng_state()}}

    def vector(self) -> torch.Tensor:
        moments = [value.flatten() for state in self.optimizer.state.values() for value in state.values()]
        return torch.cat([nn.utils.parameters_to_vector(self.module.parameters()).detach(), *moments])


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_model_optimizer_generators_and_position_come_back_bit_for_bit(directory):
    first = Run(directory, steps=3)
    random.seed(5)
    np.random.seed(5)
    path = first.save()
    expected = (first.vector(), torch.randn(3), random.random(), np.random.rand())
    second = Run(directory)
    random.seed(6)
    np.random.seed(6)
    state = second.restore()
    assert state is not None
    assert (path.name, state["step"], state["loader"]) == ("step-000003", 3, {"position": 3})
    found = (second.vector(), torch.randn(3), random.random(), np.random.rand())
    assert all(np.array_equal(a, b) for a, b in zip(expected, found, strict=True))
    assert second.optimizer.param_groups[0]["lr"] == 0.1


def test_without_checkpoints_there_is_nothing_to_restore(directory):
    assert Run(directory).restore() is None
    assert Run(directory).checkpointer.newest() is None


def test_only_the_newest_are_kept_and_what_a_kill_left_is_cleared(directory):
    run = Run(directory)
    (directory / ".step-000001.tmp").mkdir(parents=True)
    (directory / ".step-000001.tmp" / "__0_0.distcp").write_bytes(b"half")
    for _ in range(4):
        run.take_step()
        run.save()
    assert names(directory) == ["step-000003", "step-000004"]
    assert run.checkpointer.newest() == directory / "step-000004"


def test_unfinished_checkpoints_are_never_seen(directory):
    run = Run(directory, steps=1)
    run.save()
    shutil.copytree(directory / "step-000001", directory / ".step-000002.tmp")
    (directory / "step-notes").mkdir()
    assert [path.name for path in files.list_checkpoints(directory)] == ["step-000001"]
    state = Run(directory).restore()
    assert state is not None
    assert state["step"] == 1


def test_checkpoints_are_ordered_by_number_not_by_name(directory):
    for step in (999_999, 1_000_000):
        (directory / f"step-{step:06d}").mkdir(parents=True)
    assert [path.name for path in files.list_checkpoints(directory)] == ["step-1000000", "step-999999"]


def truncate(path: Path) -> None:
    data = next(path.glob("*.distcp"))
    os.truncate(data, data.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = next(path.glob("*.distcp"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)


def remove_data(path: Path) -> None:
    next(path.glob("*.distcp")).unlink()


def remove_state(path: Path) -> None:
    (path / "state.json").unlink()


def cut_state(path: Path) -> None:
    (path / "state.json").write_text('{"schema_version": 1, ', encoding="utf-8")


def age_state(path: Path) -> None:
    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    (path / "state.json").write_text(json.dumps({**state, "schema_version": 99}), encoding="utf-8")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, remove_data, remove_state, cut_state, age_state])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(directory, damage):
    run = Run(directory, steps=1)
    run.save()
    expected = run.vector()
    run.take_step()
    damage(run.save())
    resumed = Run(directory)
    with pytest.warns(CheckpointWarning, match=r"step-000002.*renamed to 'damaged-step-000002'.*step-000001"):
        state = resumed.restore()
    assert state is not None
    assert state["step"] == 1
    assert torch.equal(resumed.vector(), expected)
    resumed.step = 2
    resumed.save()  # the name is free again
    assert names(directory) == ["damaged-step-000002", "step-000001", "step-000002"]


def test_when_all_are_damaged_nothing_is_touched_and_the_error_says_so(directory):
    run = Run(directory, steps=1)
    truncate(run.save())
    before = names(directory)
    with pytest.raises(CheckpointError, match=r"No checkpoint in .* can be read.*step-000001' is damaged"):
        Run(directory).restore()
    assert names(directory) == before


def test_another_model_or_workload_is_refused_by_name(directory):
    Run(directory, steps=1).save()
    other = {"seed": 0, "model": {"hidden_size": 48}, "workload": {"seq_len": 128}}
    with pytest.raises(
        CheckpointError, match=r"model.hidden_size was 32 and is 48; workload.seq_len was 64 and is 128"
    ):
        Run(directory, identity=other).restore()


def test_a_model_that_does_not_fit_the_tensors_is_a_checkpoint_error(directory):
    Run(directory, steps=1).save()
    other = Run(directory)
    other.module = nn.Linear(7, 7)
    other.optimizer = torch.optim.AdamW(other.module.parameters())
    with pytest.raises(CheckpointError, match="cannot be read"):
        other.restore()


class Harmful:
    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return (os.mkdir, (str(self.proof),))


def test_a_table_of_contents_that_would_run_code_is_refused(directory, tmp_path):
    path = Run(directory, steps=1).save()
    (path / ".metadata").write_bytes(pickle.dumps(Harmful(tmp_path / "proof")))
    with pytest.raises(CheckpointError, match=r"it asks for posix.mkdir"):
        tensor_store.stored_names(path)
    assert not (tmp_path / "proof").exists()
    (path / ".metadata").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match="not a table of contents"):
        tensor_store.stored_names(path)


def test_a_stored_object_that_is_not_a_tensor_is_refused(tmp_path):
    tensor_store.save_tensors({"model": {"weight": torch.ones(2), "name": "text"}}, tmp_path, distributed=False)
    with pytest.raises(CheckpointError, match=r"'model.name', which is not a tensor"):
        tensor_store.stored_names(tmp_path)


@pytest.mark.parametrize("where", ["tensors", "state", "folder"])
def test_a_full_disk_leaves_the_previous_checkpoint_and_nothing_else(directory, monkeypatch, where):
    run = Run(directory, steps=1)
    run.save()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

    if where == "tensors":
        monkeypatch.setattr(tensor_store.FileSystemWriter, "write_data", full)
    elif where == "state":
        monkeypatch.setattr(files.json, "dump", full)
    else:
        monkeypatch.setattr(files, "_sync_folder", full)
    run.take_step()
    with pytest.raises(CheckpointError) as caught:
        run.save()
    message = str(caught.value)
    assert "checkpoint of step 2 could not be written" in message
    assert "the disk is full (No space left on device)" in message
    assert "It needs about" in message
    assert f"'{directory / 'step-000001'}' is intact; continue from it with resume=true" in message
    assert names(directory) == ["step-000001"]
    monkeypatch.undo()
    assert Run(directory).restore() is not None


def test_a_full_disk_is_named_when_the_writer_hides_the_cause(directory, monkeypatch):
    def hide(*args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")

    run = Run(directory, steps=1)
    monkeypatch.setattr(tensor_store.FileSystemWriter, "write_data", hide)
    with pytest.raises(CheckpointError, match=r"could not be written to '.*': RuntimeError"):
        run.save()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 990, 10))
    with pytest.raises(CheckpointError, match=r"the disk is full \(RuntimeError.*10 B were free"):
        run.save()
