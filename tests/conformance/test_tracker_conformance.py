"""The trackers that gnomon ships pass the suite that it gives to third parties, with real backends."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gnomon.errors import GnomonError, TrackerWarning
from gnomon.track.base import Item
from gnomon.track.conformance import TrackerConformance, create_context, create_forwarded, create_item, create_run
from gnomon.track.console import ConsoleTracker
from gnomon.track.jsonl import JsonlTracker
from gnomon.track.mlflow import MLflowTracker
from gnomon.track.prov import ProvTracker
from gnomon.track.settings import MLflowSettings, ProvSettings, TensorBoardSettings, WandbSettings
from gnomon.track.sync import sync_run, unsent
from gnomon.track.tensorboard import TensorBoardTracker
from gnomon.track.wandb import WandbTracker

STARTS_WITHIN_S = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MLflowServer:
    """A real server on a free port, that can be killed and started again over the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        uncovered = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/m.db",
                 "--artifacts-destination", str(self.folder / "artifacts"), "--host", "127.0.0.1",
                 "--port", str(self.port), "--workers", "1"],
                stdout=log, stderr=log, start_new_session=True, env=uncovered,
            )  # fmt: skip
        for _ in range(10 * STARTS_WITHIN_S):
            with suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.1)
        raise AssertionError(f"no server within {STARTS_WITHIN_S} s: {(self.folder / 'server.log').read_text()}")

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = MLflowServer(tmp_path_factory.mktemp("mlflow"))
    yield found
    found.kill()


def histories(uri: str, run_id: str) -> list[tuple[str, int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return [
        (point.key, point.step, point.value)
        for name in client.get_run(run_id).data.metrics
        for point in client.get_metric_history(run_id, name)
    ]


def memory(run, name: str, rank: int = 0) -> dict:
    return json.loads((run.path / f"tracking/rank-{rank}/{name}.json").read_text(encoding="utf-8"))["memory"]


class TestJsonl(TrackerConformance):
    def create_tracker(self, folder):
        return JsonlTracker(folder / "metrics.jsonl")

    def create_item(self, kind, folder):
        import matplotlib.figure
        import torch

        live = {
            "figure": matplotlib.figure.Figure(),
            "image": np.zeros((2, 2, 3)),
            "graph": (torch.nn.Linear(2, 1), torch.zeros(1, 2)),
            "model": torch.nn.Linear(2, 1),
        }
        return Item(kind=kind, name=kind, value=live[kind]) if kind in live else create_item(kind, folder)

    def read_metrics(self, folder):
        rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        names = ("loss", "eval_loss")
        return [(name, row["step"], row[name]) for row in rows for name in names if name in row]


class TestConsole(TrackerConformance):
    def create_tracker(self, folder):
        return ConsoleTracker(10, Console(file=io.StringIO()))


class TestConsoleOnATerminal(TrackerConformance):
    def create_tracker(self, folder):
        return ConsoleTracker(10, Console(file=io.StringIO(), force_terminal=True))


class TestTensorBoard(TrackerConformance):
    def create_tracker(self, folder):
        return TensorBoardTracker(TensorBoardSettings(name="tensorboard"), create_context(folder))

    def create_unreachable_tracker(self, folder):
        (folder / "a file").touch()
        return create_forwarded(folder, {"name": "tensorboard", "log_dir": str(folder / "a file" / "below")})

    def read_metrics(self, folder):
        return tensorboard_scalars(folder / "run" / "tensorboard")


class TestWandbOffline(TrackerConformance):
    def create_tracker(self, folder):
        return WandbTracker(WandbSettings(name="wandb", mode="offline"), create_context(folder))


class TestProv(TrackerConformance):
    def create_tracker(self, folder):
        return ProvTracker(ProvSettings(name="prov"), create_context(folder))

    def create_unreachable_tracker(self, folder):
        (create_run(folder).path / "prov.json").mkdir()
        return create_forwarded(folder, {"name": "prov"})


@pytest.mark.integration
class TestMLflow(TrackerConformance):
    @pytest.fixture(autouse=True)
    def _server(self, server):
        self.server = server

    def create_tracker(self, folder):
        self.context = create_context(folder)
        settings = MLflowSettings(name="mlflow", tracking_uri=self.server.uri, experiment_name="conformance")
        return MLflowTracker(settings, self.context)

    def create_unreachable_tracker(self, folder):
        return create_forwarded(folder, {"name": "mlflow", "tracking_uri": f"http://127.0.0.1:{free_port()}"})

    def read_metrics(self, folder):
        return histories(self.server.uri, self.context.memory["run_id"])


def tensorboard_scalars(folder: Path) -> list[tuple[str, int, float]]:
    events = tensorboard_events(folder)
    return [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]


def tensorboard_events(folder: Path):
    sys.modules.setdefault("tensorboard.compat.notf", type(sys)("tensorboard.compat.notf"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return events


def test_tensorboard_files_hold_what_was_recorded(tmp_path):
    tracker = create_forwarded(tmp_path, {"name": "tensorboard", "every": 10})
    for step in range(1, 101):
        tracker.log({"step": step, "loss": 1 / step})
    tracker.log({"step": 15, "eval_loss": 0.5})
    tracker.record(Item(kind="image", name="picture", value=np.zeros((4, 6, 3), np.uint8), step=3))
    tracker.record(Item(kind="text", name="note", value="hello", step=2))
    tracker.record(Item(kind="param", name="model", value={"layers": 3}))
    tracker.record(Item(kind="artifact", name="config", value=create_run(tmp_path).config))  # it does not take these
    tracker.close()
    events = tensorboard_events(tmp_path / "run" / "tensorboard")
    assert [event.step for event in events.Scalars("loss")] == list(range(10, 101, 10))
    assert [(event.step, event.value) for event in events.Scalars("eval_loss")] == [(15, 0.5)]
    (image,) = events.Images("picture")
    assert (image.step, image.width, image.height) == (3, 6, 4)
    assert events.Tensors("note")[0].tensor_proto.string_val == [b"hello"]
    assert "_hparams_/session_start_info" in events.Tags()["tensors"]


def test_what_a_resumed_run_repeats_is_sent_once(tmp_path):
    first = create_forwarded(tmp_path, {"name": "tensorboard"})
    for step in range(1, 11):
        first.log({"step": step, "loss": 1 / step})
    first.close()
    run = create_run(tmp_path)
    run.keep_metrics(row for row in run.read_metrics() if row["step"] <= 6)  # its newest checkpoint is of step 6
    second = create_forwarded(tmp_path, {"name": "tensorboard"})
    for step in range(7, 16):
        second.log({"step": step, "loss": 1 / step})
    second.close()
    found = tensorboard_scalars(tmp_path / "run" / "tensorboard")
    assert sorted(found) == [("loss", step, pytest.approx(1 / step)) for step in range(1, 16)]


def test_wandb_offline_files_hold_what_was_logged_at_its_step(tmp_path):
    tracker = create_forwarded(tmp_path, {"name": "wandb", "mode": "offline", "project": "p"})
    for step in (1, 5, 9):
        tracker.log({"step": step, "loss": 1 / step})
    tracker.record(Item(kind="param", name="lr", value=0.1))
    tracker.record(Item(kind="image", name="late", value=np.zeros((2, 2)), step=4))
    tracker.close()
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    history, config = read_wandb(path)
    assert [(row["_step"], row["loss"]) for row in history if "loss" in row] == [(1, 1.0), (5, 0.2), (9, 1 / 9)]
    assert any("late" in row or "late/_type" in row for row in history)
    assert config["lr"] == 0.1


def read_wandb(path: Path) -> tuple[list[dict], dict]:
    """Return the rows of the history and the config in a file of W&B."""
    from wandb.proto import wandb_internal_pb2

    history, config = [], {}
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            items = record.history.item
            history.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
        for update in record.config.update:
            config[update.key] = json.loads(update.value_json)
    return history, config


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of LevelDB's log format: blocks of 32 KiB, chunks of checksum, length and type (last: 1, 4)."""
    position, record = 7, b""
    while position + 7 <= len(data):
        if 2**15 - position % 2**15 < 7:
            position += 2**15 - position % 2**15
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


def test_the_provenance_document_says_what_was_used_and_made(tmp_path):
    from prov.model import ProvDocument

    tracker = create_forwarded(tmp_path, {"name": "prov"})
    run = create_run(tmp_path)
    (run.checkpoints / "step-000002").mkdir(parents=True)
    tracker.log({"step": 1, "loss": 0.5})
    tracker.record(Item(kind="param", name="lr", value=0.1))
    tracker.record(Item(kind="dataset", name="digits", value={"source": "generated", "samples": 3}))
    tracker.record(Item(kind="image", name="shower", value=np.zeros((2, 2)), step=2))
    tracker.close()
    document = ProvDocument.deserialize(source=str(run.path / "prov.json"))
    kinds = [record.get_type().localpart for record in document.get_records()]
    assert kinds.count("Activity") == 1
    assert kinds.count("Agent") == 2
    entities = {
        str(record.identifier): dict(record.attributes) for record in document.get_records() if record.is_element()
    }
    names = {"run:config.yaml", "run:env.json", "run:metrics.jsonl", "run:checkpoints/step-000002", "run:param/lr",
             "run:dataset/digits", "run:image/shower/step-2"}  # fmt: skip
    assert names <= set(entities)
    metrics = {str(key): value for key, value in entities["run:metrics.jsonl"].items()}
    assert metrics["gnomon:last_loss"] == 0.5
    assert len(metrics["gnomon:sha256"]) == 64
    assert kinds.count("Usage") == 4
    assert kinds.count("Generation") == 3


@pytest.mark.integration
def test_mlflow_has_a_run_per_rank_below_that_of_the_training(server, tmp_path):
    from mlflow import MlflowClient

    settings = {
        "name": "mlflow",
        "tracking_uri": server.uri,
        "experiment_name": "tree",
        "ranks": -1,
        "run_name": "mine",
    }
    workers = [create_forwarded(tmp_path, settings, rank, 2) for rank in (1, 0)]  # rank 1 has to wait for rank 0
    for rank, tracker in zip((1, 0), workers, strict=True):
        for step in range(1, 4):
            tracker.log({"step": step, "loss": rank + step})
        tracker.record(Item(kind="param", name="seed", value=rank))
        tracker.record(Item(kind="text", name="notes/rank", value=str(rank)))
    workers[1].ask_to_close()
    for tracker in workers:
        tracker.close()
    client = MlflowClient(server.uri)
    runs = client.search_runs([client.get_experiment_by_name("tree").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert sorted(by_name) == ["mine", "worker_0 (main)", "worker_1"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for rank, name in enumerate(("worker_0 (main)", "worker_1")):
        run = by_name[name]
        assert run.data.tags["mlflow.parentRunId"] == by_name["mine"].info.run_id
        assert sorted(histories(server.uri, run.info.run_id)) == [("loss", step, rank + step) for step in (1, 2, 3)]
        assert run.data.params == {"seed": str(rank)}
        assert [entry.path for entry in client.list_artifacts(run.info.run_id, "notes")] == ["notes/rank.txt"]


@pytest.mark.integration
def test_a_server_that_dies_in_the_middle_of_a_run_gets_each_row_once_in_the_end(server, tmp_path):
    settings = {"name": "mlflow", "tracking_uri": server.uri, "experiment_name": "killed"}
    tracker = create_forwarded(tmp_path, settings)
    run = create_run(tmp_path)
    for step in range(1, 101):
        tracker.log({"step": step, "loss": 1 / step, "lr": 0.1})
    for _ in range(600):
        if not unsent(run)["mlflow"]:
            break
        time.sleep(0.1)
    server.kill()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(101, 201):
            tracker.log({"step": step, "loss": 1 / step, "lr": 0.1})
        tracker.record(Item(kind="param", name="late", value=1))
        tracker.close()
    troubles = [str(found.message) for found in caught if issubclass(found.category, TrackerWarning)]
    assert [text.startswith("The tracker mlflow is in trouble") for text in troubles] == [True], troubles
    assert len(run.read_metrics()) == 200
    assert unsent(run)["mlflow"] > 0
    with pytest.raises(GnomonError, match="mlflow does not take rank 0"):
        sync_run(run)
    server.start()
    (result,) = sync_run(run)
    assert (result.rows, result.items) == (100, 1)
    (again,) = sync_run(run)
    assert (again.rows, again.items) == (0, 0)
    found = histories(server.uri, memory(run, "mlflow")["run_id"])
    expected = [("loss", step, 1 / step) for step in range(1, 201)] + [("lr", step, 0.1) for step in range(1, 201)]
    assert sorted(found) == sorted(expected)
