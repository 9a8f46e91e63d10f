"""Sending later, each thing once; and the verbs `gnomon track` and `gnomon ui`."""

import contextlib
import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from gnomon.cli import ui
from gnomon.cli.main import app
from gnomon.errors import ConfigError, GnomonError, InterruptedRunError, TrackerWarning
from gnomon.runtime.environment import RankEnvironment
from gnomon.track.base import Item, ItemRejectedError, Tracker
from gnomon.track.collection import create_trackers
from gnomon.track.conformance import create_forwarded, create_run
from gnomon.track.context import DeliveryState, TrackerContext
from gnomon.track.delivery import BATCH_LINES, Delivery
from gnomon.track.download import write_csv
from gnomon.track.jsonl import JsonlTracker
from gnomon.track.mlflow import MLflowTracker, default_uri
from gnomon.track.outcome import read_outcome
from gnomon.track.places import Places
from gnomon.track.settings import MLflowSettings, TrackerSettings
from gnomon.track.sync import sync_run, unsent


class Backend(Tracker):
    """Keeps what it is given, once flushed; fails when told to."""

    kinds = frozenset({"metric", "text"})

    def __init__(self) -> None:
        self.arrived: list = []
        self.buffer: list = []
        self.fails = False

    def log(self, row):
        self.buffer.append(row["step"])

    def record(self, item):
        if item.value == "bad":
            raise ItemRejectedError("too bad")
        self.buffer.append(item.name)

    def flush(self):
        if self.fails:
            self.buffer.clear()
            raise ConnectionError("down")
        self.arrived += self.buffer
        self.buffer = []

    def close(self):
        self.arrived.append("closed")


def delivery(run, backend, **settings) -> Delivery:
    places = Places(run.path)
    places.folder(0).mkdir(parents=True, exist_ok=True)
    return Delivery(
        places, TrackerSettings(name="test", **settings), 0, lambda: backend, TrackerContext(run=run),
        DeliveryState.load(places, "test", 0),
    )  # fmt: skip


def write(run, *steps: int) -> None:
    tracker = JsonlTracker(run.metrics)
    for step in steps:
        tracker.log({"step": step, "loss": 1.0})
    tracker.close()


def test_each_row_and_item_is_sent_once_though_the_backend_fails_in_between(tmp_path):
    run, backend = create_run(tmp_path), Backend()
    write(run, *range(1, 2 * BATCH_LINES))
    sender = delivery(run, backend)
    assert sender.send_batch()
    backend.fails = True
    with pytest.raises(ConnectionError):
        sender.send_batch()
    backend.fails = False
    other = delivery(run, backend)  # another process
    assert other.send_batch()
    assert not other.send_batch()
    assert backend.arrived == list(range(1, 2 * BATCH_LINES))


def test_rows_and_items_arrive_in_the_order_of_their_times(tmp_path):
    run, backend = create_run(tmp_path), Backend()
    tracker = JsonlTracker(run.metrics)
    for step in range(3 * BATCH_LINES):
        tracker.log({"step": step})
        if step % 2:
            tracker.record(Item(kind="text", name=f"after {step}", value="", time_s=round(time.time() + 5e-4, 4)))
        if step % BATCH_LINES == 0:
            time.sleep(0.002)
    tracker.close()
    sender = delivery(run, backend)
    while sender.send_batch():
        pass
    assert len(backend.arrived) == 4.5 * BATCH_LINES
    steps = [entry for entry in backend.arrived if isinstance(entry, int)]
    assert steps == sorted(steps)


def test_what_is_refused_or_gone_is_left_out_by_name_and_the_rest_is_sent(tmp_path):
    run, backend = create_run(tmp_path), Backend()
    tracker = JsonlTracker(run.metrics)
    for value in ("good", "bad", "good"):
        tracker.record(Item(kind="text", name=value, value=value))
    tracker.record(Item(kind="param", name="lr", value=1))  # it does not take those
    tracker.close()
    sender = delivery(run, backend)
    sender.send_batch()
    sender.finish()
    assert backend.arrived == ["good", "good", "closed"]
    assert sender.rejected == ["The text 'bad' was refused: too bad"]


def test_a_line_that_is_still_being_written_waits(tmp_path):
    run, backend = create_run(tmp_path), Backend()
    run.metrics.write_text('{"step": 1}\n{"step": 2', encoding="utf-8")
    sender = delivery(run, backend)
    assert sender.send_batch()
    assert not sender.send_batch()
    with run.metrics.open("a") as file:
        file.write("}\n")
    assert sender.send_batch()
    assert backend.arrived == [1, 2]


@pytest.mark.parametrize("kept", [3, 5])
def test_rows_that_a_resumed_run_writes_again_are_passed_over(tmp_path, kept):
    run, backend = create_run(tmp_path), Backend()
    write(run, 1, 2, 3, 4, 5, 5)
    delivery(run, backend).send_batch()
    run.keep_metrics(row for row in run.read_metrics() if row["step"] <= kept)
    size_bytes = run.metrics.stat().st_size
    write(run, *[step for step in (4, 5, 5) if step > kept], 5, 6, 7)
    sender = delivery(run, backend)
    sender.state.rewind(size_bytes)
    sender.send_batch()
    assert backend.arrived == [1, 2, 3, 4, 5, 5, 5, 6, 7]


def test_a_damaged_state_means_that_nothing_was_sent(tmp_path):
    run = create_run(tmp_path)
    places = Places(run.path)
    places.folder(0).mkdir(parents=True)
    places.state("test", 0).write_text("{", encoding="utf-8")
    assert DeliveryState.load(places, "test", 0).metrics_bytes == 0


TRAINER = """
import sys, time
from pathlib import Path
from gnomon.track.conformance import create_forwarded
tracker = create_forwarded(Path(sys.argv[1]), {"name": "tensorboard"})
for step in range(1, 301):
    tracker.log({"step": step, "loss": 1 / step})
print("ready", flush=True)
time.sleep(60)
"""


def test_a_trainer_that_is_killed_loses_nothing(tmp_path):
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    trainer = subprocess.Popen([sys.executable, "-c", TRAINER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "ready\n"
    trainer.kill()
    trainer.wait()
    run = create_run(tmp_path)
    with Places(run.path).lock("tensorboard", 0).open("a") as lock:
        for _ in range(300):  # until the process that sends has ended by itself
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
    sync_run(run)  # in case it was killed before it had begun
    assert unsent(run) == {"tensorboard": 0}
    (path,) = (run.path / "tensorboard").glob("events*")
    assert len(list(RawEventFileLoader(str(path)).Load())) == 301  # one more says the version


def test_a_sender_that_is_killed_in_the_middle_sends_each_row_to_mlflow_once(tmp_path):
    from mlflow import MlflowClient

    run = create_run(tmp_path)
    tracker = create_forwarded(tmp_path, {"name": "mlflow", "close_timeout_s": 60})
    (forwarder,) = tracker._forwarders
    for step in range(1, 3001):
        tracker.log({"step": step, "loss": 1 / step})
    for _ in range(300):
        if unsent(run)["mlflow"] < run.metrics.stat().st_size:
            break  # it is in the middle of it
        time.sleep(0.02)
    os.kill(forwarder._process.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match=r"its process ended (by itself|with exit code -9)"):
        tracker.close()
    sync_run(run)
    memory = DeliveryState.load(Places(run.path), "mlflow", 0).memory
    client = MlflowClient(default_uri(run.path))
    history = client.get_metric_history(memory["run_id"], "loss")
    assert sorted((point.step, point.value) for point in history) == [(step, 1 / step) for step in range(1, 3001)]
    assert len(client.search_runs([memory["experiment_id"]])) == 2


KILLED_RUN = """
import os, signal, sys, time
from pathlib import Path
from gnomon.track.conformance import create_forwarded
tracker = create_forwarded(Path(sys.argv[1]), {"name": "mlflow", "close_timeout_s": 60})
tracker.log({"step": 1, "loss": 1.0})
os.kill(os.getpid(), signal.SIGKILL)
"""


def mlflow_statuses(run) -> set[str]:
    from mlflow import MlflowClient

    memory = DeliveryState.load(Places(run.path), "mlflow", 0).memory
    client = MlflowClient(default_uri(run.path))
    return {client.get_run(memory[key]).info.status for key in ("run_id", "parent_run_id")}


def test_mlflow_shows_that_a_run_was_killed_until_it_is_resumed_and_ends(tmp_path):
    command = [sys.executable, "-c", KILLED_RUN, str(tmp_path)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL
    run = create_run(tmp_path)
    for _ in range(600):
        if DeliveryState.load(Places(run.path), "mlflow", 0).closed:
            break  # the sender has gone on to the end
        time.sleep(0.1)
    with Places(run.path).lock("mlflow", 0).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert mlflow_statuses(run) == {"KILLED"}
    tracker = create_trackers([], run, RankEnvironment.detect(), 2)  # resumed, and without MLflow this time
    tracker.close()
    sync_run(run)
    assert mlflow_statuses(run) == {"FINISHED"}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(None, "finished"), (ValueError, "failed"), (InterruptedRunError, "killed"), (KeyboardInterrupt, "killed")],
)
def test_what_ends_a_run_is_its_outcome(tmp_path, error, outcome):
    run = create_run(tmp_path)
    with contextlib.suppress(KeyboardInterrupt, InterruptedRunError, ValueError):
        try:
            raise OSError("an earlier run failed, and this one is tried in its place")
        except OSError:
            tracker = create_trackers([], run, RankEnvironment.detect(), 2)
            assert read_outcome(Places(run.path), 0) == "killed"  # as long as it says nothing else
            try:
                if error is not None:
                    raise error
            finally:
                tracker.close()
    tracker.close()
    assert read_outcome(Places(run.path), 0) == outcome


def test_a_parameter_that_mlflow_refuses_is_named_and_the_others_arrive(tmp_path):
    from mlflow import MlflowClient

    run = create_run(tmp_path)
    tracker = create_forwarded(tmp_path, {"name": "mlflow", "close_timeout_s": 60})
    for name, value in (("lr", 1), ("lr", 2), ("width", 3)):
        tracker.record(Item(kind="param", name=name, value=value))
    with pytest.warns(
        TrackerWarning, match=r"mlflow leaves something out\. The param 'lr' was refused: Changing param"
    ):
        tracker.close()
    memory = DeliveryState.load(Places(run.path), "mlflow", 0).memory
    assert MlflowClient(default_uri(run.path)).get_run(memory["run_id"]).data.params == {"lr": "1", "width": "3"}


def test_a_run_that_was_sent_to_one_server_is_not_continued_on_another(tmp_path):
    run = create_run(tmp_path)
    context = TrackerContext(run=run, uid="u", memory={"tracking_uri": "http://a:1", "parent_run_id": "p"})
    with pytest.raises(ConfigError, match="was sent to http://a:1 so far, and tracking_uri is http://b:2 now"):
        MLflowTracker(MLflowSettings(name="mlflow", tracking_uri="http://b:2"), context)


def test_sync_sends_a_run_to_a_tracker_that_it_never_had(tmp_path):
    run = create_run(tmp_path)
    write(run, 1, 2, 3)
    with pytest.raises(ConfigError, match=r"has no tracker to send to\. Name one with --to: mlflow, prov"):
        sync_run(run)
    (result,) = sync_run(run, ["prov"])
    assert (result.rows, (run.path / "prov.json").exists()) == (3, True)
    assert sync_run(run)[0].rows == 0
    with pytest.raises(ConfigError, match="Nothing is sent to console"):
        sync_run(run, ["console"])
    with pytest.raises(ConfigError, match="Did you mean 'mlflow'"):
        sync_run(run, ["mflow"])
    with pytest.raises(ConfigError, match="leave the options out"):
        sync_run(run, ["prov"], {"namespace": "x"})


def test_sync_leaves_a_run_alone_that_is_being_sent(tmp_path):
    run = create_run(tmp_path)
    write(run, 1)
    sync_run(run, ["prov"])
    with Places(run.path).lock("prov", 0).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(GnomonError, match="Another process is sending rank 0"):
            sync_run(run)


def test_the_verbs_list_and_sync(tmp_path):
    run = create_run(tmp_path)
    write(run, 1, 2)
    runner = CliRunner()
    listed = json.loads(runner.invoke(app, ["track", "list", "--json"]).stdout)
    assert {entry["name"]: entry["kinds"] for entry in listed}["console"] == ["metric"]
    assert "tensorboard" in runner.invoke(app, ["track", "list"]).stdout
    done = subprocess.run(
        [sys.executable, "-c", "from gnomon.cli.main import main; main()", "track", "sync", str(run.path), "--to",
         "tensorboard", "--set", f"log_dir={tmp_path / 'tb'}", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [{"tracker": "tensorboard", "rank": 0, "rows": 2, "items": 0, "rejected": []}]
    assert list((tmp_path / "tb").glob("events*"))
    assert isinstance(runner.invoke(app, ["track", "sync", str(run.path), "--set", "a"]).exception, ConfigError)


def test_download_writes_every_point_of_an_experiment(tmp_path, monkeypatch):
    run = create_run(tmp_path)
    write(run, 1, 2, 3)
    sync_run(run, ["mlflow"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    arguments = ["track", "download", "--run-dir", str(run.path), "-o", "a.csv"]
    assert write_csv(default_uri(run.path), "gnomon", tmp_path / "a.csv") == 3
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["metric_name"], row["value"], row["step"]) for row in rows] == [
        ("loss", "1.0", str(n)) for n in (1, 2, 3)
    ]
    assert all(float(row["timestamp"]) > 1e12 and row["run_id"] for row in rows)
    with pytest.raises(ConfigError, match=r"There is no experiment 'gnomn'.*Did you mean 'gnomon'"):
        write_csv(default_uri(run.path), "gnomn", tmp_path / "b.csv")
    runner = CliRunner()
    for wrong in (arguments[:2], [*arguments, "--tracking-uri", "http://a"], [*arguments[:3], str(tmp_path)]):
        assert isinstance(runner.invoke(app, wrong).exception, ConfigError)


def test_ui_finds_the_store_or_says_what_there_is(tmp_path):
    with pytest.raises(ConfigError, match=r"There is no mlruns\.db"):
        ui.find_store(str(tmp_path))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlruns.db").touch()
    assert ui.find_store(str(tmp_path / "a")) == ui.find_store(str(tmp_path / "a/mlruns.db"))
    assert ui.find_store(str(tmp_path / "a")) == f"sqlite:///{tmp_path}/a/mlruns.db"
    assert ui.find_store("http://host:5000") == "http://host:5000"
    with pytest.raises(ConfigError, match="There are 2 stores"):
        ui.find_store(str(tmp_path))
    result = CliRunner().invoke(app, ["ui", "tensorboard", "--path", str(tmp_path)])
    assert "no TensorBoard event file" in str(result.exception)


def test_ui_serves_tensorboard(tmp_path):
    import socket
    import urllib.request

    run = create_run(tmp_path)
    write(run, 1)
    sync_run(run, ["tensorboard"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", "from gnomon.cli.main import main; main()", "ui", "tensorboard", "--path", str(run.path),
         "--port", str(port)],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(600):
            assert server.poll() is None, server.stderr.read()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=5) as answer:
                    assert json.load(answer) == ["tensorboard"]
                    break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("no server")
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
