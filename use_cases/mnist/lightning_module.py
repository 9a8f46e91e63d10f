"""The classifier of digits as a LightningModule, as one has it from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F
from trainer import create_classifier


class DigitClassifier(lightning.LightningModule):
    """The same network as in training_pipeline, with Adam and a cosine over the whole training."""

    def __init__(self, settings: Mapping[str, Any], size: int, learning_rate: float) -> None:
        super().__init__()
        self.network = create_classifier(settings, size)
        self.learning_rate = learning_rate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean cross-entropy (nat)."""
        images, labels = batch
        return F.cross_entropy(self.network(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log the accuracy as eval_accuracy and return the loss."""
        return self._evaluate(batch, "eval_accuracy")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Log the accuracy as test_accuracy and return the loss."""
        return self._evaluate(batch, "test_accuracy")

    def configure_optimizers(self) -> dict[str, Any]:
        """Return Adam and its schedule, stepped after each optimizer step."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.1 * self.learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _evaluate(self, batch: tuple[Tensor, Tensor], name: str) -> Tensor:
        images, labels = batch
        outputs = self.network(images)
        accuracy = (outputs.argmax(1) == labels).float().mean()
        self.log(name, accuracy, on_epoch=True, sync_dist=True, batch_size=len(labels))
        return F.cross_entropy(outputs, labels)
