"""Trains any network on pairs of inputs and targets: classification and regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gnomon.data.resumable import ResumableLoader
from gnomon.errors import ConfigError, DataError
from gnomon.train.callbacks import Callback
from gnomon.train.loaders import as_dataset, create_step_loader
from gnomon.train.networks import create_network
from gnomon.train.optimizer import create_adamw
from gnomon.train.supervised_settings import ModelSettings, SupervisedConfig, read_model, read_supervised
from gnomon.train.trainer import Trainer

if TYPE_CHECKING:
    from torchmetrics import Metric

ModelSource = nn.Module | Callable[[], nn.Module] | Mapping[str, Any] | str | ModelSettings

_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda outputs, targets: F.cross_entropy(outputs, targets.long()),
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
    "mae": F.l1_loss,
    "huber": F.huber_loss,
}


class SupervisedTrainer(Trainer):
    """Trains `model` on a dataset of (input, target); the settings mean what they mean for `TensorFlowTrainer`.

    `model` is a mapping such as {name: mlp, hidden: [128], num_classes: 10}, a module, or a function that makes one,
    which is called after the generators were seeded. Except for cross_entropy a target has as many numbers as an
    output, and takes its shape. A dataset has `__len__` and `__getitem__`, or is a pair of arrays.
    """

    config: SupervisedConfig

    def __init__(
        self,
        config: Mapping[str, Any] | SupervisedConfig,
        model: ModelSource,
        loss: str = "cross_entropy",
        metrics: Sequence[str] = (),
        optimizer: str = "adamw",
        num_workers: int = 0,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        settings, self.objective = read_supervised(config, loss, metrics, optimizer)
        super().__init__(settings, callbacks)
        self._settings = settings
        self._model: Any = model if isinstance(model, nn.Module) or callable(model) else read_model(model)
        self._num_workers = num_workers
        self._loss = _LOSSES[self.objective.loss]
        self._compares_numbers = self.objective.loss != "cross_entropy"
        self._validation: Any = None

    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any, nn.Module]:
        """Train, evaluate on `test` at the end if there is one, and return (train, validation, test, trained module).

        Without a `validation` dataset nothing is evaluated on the way. Raises what `Trainer.run` raises.
        """
        self._train, self._validation, self._test = (as_dataset(each) for each in (train, validation, test))
        if self._train is None:
            raise DataError("The trainer was given no training data (None). The step before must return a dataset.")
        self.config = self._settings.for_examples(len(self._train))
        if self.config.eval_every and self._validation is None:
            raise ConfigError(
                f"eval_every={self.config.eval_every}, but there is no validation data. "
                "Give it as the second input of the trainer, or set eval_every=0."
            )
        self.run()
        return train, validation, test, self.module

    def create_model(self) -> nn.Module:
        """Return the network, made for the shape of the first input where a mapping describes it."""
        if isinstance(self._model, nn.Module):
            return self._model
        if callable(self._model):
            return self._model()
        return create_network(self._model, np.shape(self._train[0][0]))

    def create_optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, AdamW or plain SGD."""
        rate, betas = self.config.learning_rate, self.config.betas
        if self.objective.optimizer == "adamw":
            return create_adamw(self.module, self.config)
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        if self.objective.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=rate, betas=betas)
        return torch.optim.SGD(parameters, lr=rate)

    def create_loader(self) -> ResumableLoader:
        """Return this rank's micro-batches of the training data, dealt anew each epoch."""
        accumulation, workers = self.config.accumulation, self._num_workers
        return create_step_loader(
            self._train, self.config, self.strategy, accumulation=accumulation, num_workers=workers
        )

    def create_evaluation_loader(self) -> ResumableLoader | None:
        """Return this rank's micro-batches of the validation data, each sample exactly once over all ranks."""
        return None if self._validation is None else self._evaluation_loader(self._validation)

    def create_metrics(self) -> dict[str, Metric]:
        """Return the torchmetrics of the objective."""
        if not self.objective.metrics:
            return {}
        from gnomon.train.metrics import create_metric

        return {name: create_metric(name, self.objective.loss) for name in self.objective.metrics}

    def training_step(self, batch: Any) -> Tensor:
        """Return the loss of a micro-batch (inputs, targets)."""
        inputs, targets = batch
        outputs = self.model(inputs).float()
        return self._loss(outputs, self._fitted(targets, outputs))

    def validation_step(self, batch: Any) -> Tensor:
        """Return the loss of the samples of a micro-batch that count, and add them to the metrics."""
        valid = batch.valid
        inputs, targets = batch.samples
        outputs = self.model(inputs).float()
        outputs, targets = outputs[valid], self._fitted(targets, outputs)[valid]
        if not len(targets):
            return outputs.sum()
        for metric in self.metrics.values():
            metric.update(outputs, targets)
        return self._loss(outputs, targets)

    def on_trained(self) -> None:
        """Evaluate on the test data and log the result as test_loss and test_<metric>."""
        if self._test is not None:
            self.report(self.evaluate(self._evaluation_loader(self._test), "test_"))

    def samples_per_step(self) -> int:
        """Return the global batch."""
        return self.config.batch

    def identity(self) -> dict[str, Any]:
        """Return seed, batch, objective and the number of training samples."""
        return {
            **super().identity(),
            "batch": self.config.batch,
            "objective": self.objective.to_mapping(),
            "samples": len(self._train),
        }

    def _fitted(self, targets: Tensor, outputs: Tensor) -> Tensor:
        """Return the targets in the shape and type of the outputs, which every loss but cross-entropy compares.

        Targets (batch,) thus fit outputs (batch, 1). Raises DataError for another number of them.
        """
        if not self._compares_numbers:
            return targets
        if targets.shape != outputs.shape:
            if len(targets) != len(outputs) or targets.numel() != outputs.numel():
                raise DataError(
                    f"A target has the shape {tuple(targets.shape[1:])}, but the model returns "
                    f"{tuple(outputs.shape[1:])}. Set the outputs of the model (num_outputs) to the numbers of a "
                    "target."
                )
            targets = targets.reshape(outputs.shape)
        return targets.float()

    def _evaluation_loader(self, dataset: Any) -> ResumableLoader:
        return create_step_loader(dataset, self.config, self.strategy, accumulation=1, shuffle=False, last="pad")
