"""The Lightning adapter: a real Trainer logs into a run directory."""

import json
from argparse import Namespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from gnomon.errors import ConfigError
from gnomon.track.conformance import create_run
from gnomon.track.jsonl import JsonlTracker
from gnomon.track.lightning import GnomonLogger


class Line(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters({"width": 1, "dtype": torch.float32})
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, index):
        loss = (self.layer(batch) - 2 * batch).square().mean()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", (self.layer(batch) - 2 * batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def items(run) -> list[dict]:
    return [json.loads(line) for line in (run.path / "tracking/rank-0/items.jsonl").read_text().splitlines()]


def test_metrics_hyperparameters_and_checkpoints_reach_the_trackers(tmp_path):
    run = create_run(tmp_path)
    tracker = JsonlTracker(run.metrics)
    logger = GnomonLogger(tracker, run.path, log_model="all")
    data = torch.utils.data.DataLoader(torch.linspace(-1, 1, 16).reshape(16, 1), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=2, logger=logger, log_every_n_steps=2, accelerator="cpu", enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Line(), data, data)
    tracker.close()
    rows = run.read_metrics()
    assert [row["step"] for row in rows if "train_loss_step" in row] == [1, 3, 5, 7]
    assert not any("epoch" in row for row in rows if "train_loss_step" in row)
    assert [row["epoch"] for row in rows if "train_loss_epoch" in row] == [0, 1]
    assert len([row for row in rows if "val_loss" in row]) == 2
    params = {item["name"]: item["value"] for item in items(run) if item["kind"] == "param"}
    assert params == {"width": 1, "dtype": "torch.float32"}
    models = [item["path"] for item in items(run) if item["kind"] == "model"]
    assert len(models) == 2
    assert all(path.startswith("checkpoints/") for path in models)
    assert (logger.name, logger.version, logger.save_dir) == ("run", "", str(tmp_path))


def test_hyperparameters_may_be_a_namespace_and_the_graph_needs_an_example(tmp_path):
    run = create_run(tmp_path)
    tracker = JsonlTracker(run.metrics)
    logger = GnomonLogger(tracker, run.path)
    logger.log_hyperparams(Namespace(lr=0.1, layers=[1, 2]))
    logger.log_graph(nn.Linear(2, 1))
    logger.log_graph(nn.Linear(2, 1), torch.zeros(1, 2))
    logger.log_metrics({"loss": 1.0})
    logger.finalize("success")
    logger.log_metrics({"test_loss": 1.0}, step=3)  # Lightning goes on after it has finalized
    tracker.close()
    assert [(item["kind"], item["name"]) for item in items(run)] == [
        ("param", "lr"), ("param", "layers"), ("graph", "Linear")
    ]  # fmt: skip
    assert [row["step"] for row in run.read_metrics()] == [0, 3]


def test_a_logger_can_make_its_own_run_directory(tmp_path):
    logger = GnomonLogger.create(tmp_path / "run", log_model=True)
    logger.log_metrics({"loss": 1.0}, step=1)
    logger.tracker.close()
    assert [row["loss"] for row in create_run(tmp_path).read_metrics()] == [1.0]


def test_log_model_is_checked(tmp_path):
    with pytest.raises(ConfigError, match=r"log_model='some'\. It can be True, False or 'all'"):
        GnomonLogger(JsonlTracker(tmp_path / "metrics.jsonl"), tmp_path, log_model="some")
