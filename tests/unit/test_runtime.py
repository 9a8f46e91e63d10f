"""What a process finds out about itself: rank, device, seeds, signals, versions."""

import json
import os
import random
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, LaunchError
from gnomon.runtime import devices, versions
from gnomon.runtime.devices import device_name, resolve_device
from gnomon.runtime.environment import RankEnvironment
from gnomon.runtime.seeds import rng_state, seed_everything, set_rng_state
from gnomon.runtime.signals import StopFlag, die_with_parent

TORCHRUN = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, RankEnvironment()),
        ({"PATH": "/bin"}, RankEnvironment(rank=0, local_rank=0, world_size=1, local_world_size=1, source="single")),
        (TORCHRUN, RankEnvironment(rank=3, local_rank=1, world_size=4, local_world_size=2, source="torchrun")),
        (
            {**TORCHRUN, "RANK": "0", "LOCAL_RANK": "0"},
            RankEnvironment(world_size=4, local_world_size=2, source="torchrun"),
        ),
    ],
)
def test_environment_is_detected(variables: dict[str, str], expected: RankEnvironment) -> None:
    found = RankEnvironment.detect(variables)
    assert found == expected
    assert found.is_main == (found.rank == 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE set in the environment, but not RANK, LOCAL_RANK, LOCAL_WORLD_SIZE"),
        ({**TORCHRUN, "RANK": "three"}, "RANK='three' in the environment is not an integer"),
        ({**TORCHRUN, "RANK": "4"}, "RANK=4, WORLD_SIZE=4"),
        ({**TORCHRUN, "LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
        ({**TORCHRUN, "LOCAL_WORLD_SIZE": "5"}, "LOCAL_WORLD_SIZE=5"),
    ],
)
def test_contradictory_environment_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        RankEnvironment.detect(variables)


def test_environment_is_read_from_the_process_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert RankEnvironment.detect().rank == 3


def show_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("name", "gpus", "expected"),
    [("auto", 0, "cpu"), ("cpu", 2, "cpu"), ("auto", 2, "cuda:1"), ("cuda", 2, "cuda:1")],
)
def test_device_follows_the_local_rank(monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, expected: str) -> None:
    show_gpus(monkeypatch, gpus)
    assert str(resolve_device(name, local_rank=1)) == expected


@pytest.mark.parametrize(
    ("name", "gpus", "kind", "message"),
    [
        ("cuda", 0, LaunchError, "finds no CUDA device.* Set device=cpu"),
        ("auto", 1, LaunchError, "Local rank 1 needs GPU 1.* Set ranks=1"),
        ("cude", 0, ConfigError, "Did you mean 'cuda'"),
    ],
)
def test_device_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, name: str, gpus: int, kind: type[Exception], message: str
) -> None:
    show_gpus(monkeypatch, gpus)
    with pytest.raises(kind, match=message):
        resolve_device(name, local_rank=1)


def test_device_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cpu_model", lambda: "Some  CPU   @ 2 GHz")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert device_name(torch.device("cpu")) == "Some CPU @ 2 GHz"
    assert device_name(torch.device("cuda", 1)) == "GPU 1"
    assert device_name(torch.device("meta")) == "meta"


def draw() -> tuple[float, float, float, float]:
    return random.gauss(0, 1), float(np.random.randn()), float(torch.randn(())), random.random()


def test_equal_seeds_draw_equal_numbers_and_ranks_differ() -> None:
    streams = []
    for seed, rank in [(0, 0), (0, 0), (0, 1), (1, 0), (1, 1)]:
        seed_everything(seed, rank)
        streams.append(draw())
    assert streams[0] == streams[1]
    assert len(set(streams)) == 4


def test_rank_zero_takes_the_seed_itself() -> None:
    assert seed_everything(7, 0) == 7
    assert float(torch.rand(())) == float(torch.rand((), generator=torch.Generator().manual_seed(7)))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(ConfigError, match="out of range"):
        seed_everything(seed)


@pytest.mark.parametrize("draws_before", [0, 1, 2, 1000])
def test_generators_continue_where_they_were(tmp_path: Path, draws_before: int) -> None:
    seed_everything(11)
    for _ in range(draws_before):
        draw()
        np.random.randn(3)  # an odd count leaves a cached Gaussian behind
    torch.save(rng_state(), tmp_path / "state.pt")
    expected = [draw() for _ in range(5)]
    seed_everything(99)
    set_rng_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw() for _ in range(5)] == expected


def test_state_has_fixed_shapes() -> None:
    shapes = []
    for draws in (0, 1):
        seed_everything(3)
        [draw() for _ in range(draws)]
        shapes.append({name: (tensor.shape, tensor.dtype) for name, tensor in rng_state().items()})
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_sets_the_flag_and_the_old_handler_returns(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopFlag() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal_name == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal_name, stop.count) == (number.name, 2)
    assert signal.getsignal(number) is before


def test_the_handlers_return_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopFlag():
        1 / 0  # noqa: B018
    assert signal.getsignal(signal.SIGINT) is before


def test_the_flag_outside_the_main_thread_does_nothing() -> None:
    found = []

    def use() -> None:
        with StopFlag() as stop:
            found.append(bool(stop))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert found == [False]


def test_a_child_of_a_dead_parent_ends_at_once() -> None:
    if not Path("/proc").is_dir():
        pytest.skip("the kernel ends children with their parent on Linux only")
    child = os.fork()
    if child == 0:
        die_with_parent(parent_pid=1 if os.getppid() != 1 else 2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_environment_description_is_json_without_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_TOKEN", "do-not-tell")
    monkeypatch.chdir(tmp_path)
    description = versions.describe_environment()
    text = json.dumps(description)
    assert "do-not-tell" not in text
    assert torch.__version__.startswith(description["versions"]["torch"])  # CUDA builds add a local label
    assert description["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert description["cpu"]["memory_bytes"] > 2**28
    assert description["git"] is None
    assert description["date_utc"].endswith("+00:00")


def test_git_state_of_a_clean_and_a_changed_repository(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    assert versions.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "new").write_text("")
    assert versions.git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_gpus_are_those_of_nvidia_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert versions.gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB, 570.86'\n")
    tool.chmod(0o755)
    assert versions.gpus() == [{"name": "NVIDIA H200", "memory": "143771 MiB", "driver": "570.86"}]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert versions.gpus() == []
