"""What the pipelines for digits need besides gnomon's own components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gnomon.component import Component
from gnomon.train.networks import create_network
from gnomon.train.predictions import Predictions
from gnomon.train.supervised_settings import read_model


def create_classifier(settings: Mapping[str, Any], size: int) -> nn.Module:
    """Return the network that `SupervisedTrainer` makes of these settings for grey images of `size` x `size`."""
    return create_network(read_model(settings), (1, size, size))


class AccuracyOfPredictions(Component):
    """Compares predicted classes with the labels of their dataset."""

    def execute(self, predictions: Predictions, dataset: Any) -> dict[str, float | int]:
        """Return the number of samples and the share that is right."""
        labels = torch.stack([label for _, label in dataset])
        return {"samples": len(predictions), "accuracy": (predictions.values == labels).double().mean().item()}
