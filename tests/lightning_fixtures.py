"""A small LightningModule, and both ways to train it on the data of supervised_fixtures."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torchmetrics
from torch import nn

from gnomon.runtime.run_directory import RunDirectory
from gnomon.train.lightning import LightningModuleTrainer, LightningTrainer


class Classifier(pl.LightningModule):
    """A perceptron with an accuracy that is counted over all samples; `losses` are those of the micro-batches."""

    def __init__(self, interval: str = "step") -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(3, average="micro")
        self.interval = interval
        self.losses: list[float] = []
        self.seen: list[tuple[int, int, int]] = []

    def forward(self, inputs):
        return self.network(inputs)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        loss = nn.functional.cross_entropy(self(inputs), targets)
        self.losses.append(loss.item())
        self.seen.append((self.trainer.global_step, self.current_epoch, batch_idx))
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        inputs, targets = batch
        outputs = self(inputs)
        self.accuracy.update(outputs, targets)
        self.log("val_accuracy", self.accuracy)
        self.log("val_loss", nn.functional.cross_entropy(outputs, targets))

    test_step = validation_step

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3 if self.interval == "step" else 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}


SETTINGS = {"num_steps": 10, "batch": 16, "device": "cpu", "progress": False, "log_every": 1}


def make_bridge(run_dir: Path, module: Any = Classifier, **changes: Any) -> LightningModuleTrainer:
    """Return a trainer that runs the module under our loop."""
    return LightningModuleTrainer({"run_dir": str(run_dir), **SETTINGS, **changes}, module)


def make_lightning(run_dir: Path, module: Any = Classifier, **changes: Any) -> LightningTrainer:
    """Return a trainer that runs it under Lightning's loop."""
    arguments = {name: changes.pop(name) for name in ("trainer", "datamodule", "callbacks") if name in changes}
    return LightningTrainer({"run_dir": str(run_dir), **SETTINGS, **changes}, module, **arguments)


def figures(run_dir: Path, name: str) -> list[float]:
    """Return the values of a figure in the rows of a run."""
    return [row[name] for row in RunDirectory(run_dir).read_metrics() if name in row]


def weights(module: nn.Module) -> torch.Tensor:
    """Return the weights as one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().clone()
