"""The torchmetrics that a configuration can name; slow to import, and not always needed."""

from __future__ import annotations

from collections.abc import Callable

import torchmetrics
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, MulticlassAccuracy


class LogitAccuracy(BinaryAccuracy):
    """The share of logits that have the sign of their class.

    BinaryAccuracy itself takes logits that happen to lie between 0 and 1 for probabilities.
    """

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take logits, and targets of 0 and 1 of the same shape."""
        super().update((preds > 0.0).long(), target.long())


def create_metric(name: str, loss: str) -> Metric:
    """Return the metric `name` (accuracy, mse, mae or rmse) for the outputs that `loss` takes."""
    metrics: dict[str, Callable[[], Metric]] = {
        # counted over all samples, the number of classes makes no difference
        "accuracy": lambda: MulticlassAccuracy(2, average="micro", validate_args=False),
        "mse": torchmetrics.MeanSquaredError,
        "mae": torchmetrics.MeanAbsoluteError,
        "rmse": lambda: torchmetrics.MeanSquaredError(squared=False),
    }
    return LogitAccuracy() if name == "accuracy" and loss == "binary_cross_entropy" else metrics[name]()
