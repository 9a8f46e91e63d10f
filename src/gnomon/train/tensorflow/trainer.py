"""Trains any Keras model on pairs of inputs and targets: classification and regression."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gnomon.component import Component
from gnomon.errors import ConfigError, DataError, LaunchError, TrainingError
from gnomon.runtime.signals import StopFlag
from gnomon.train.examples import Examples
from gnomon.train.supervised_settings import ModelSettings, SupervisedConfig, read_model, read_supervised
from gnomon.train.tensorflow.distribution import create_distribution
from gnomon.train.tensorflow.library import check_installed, keras, tensorflow
from gnomon.train.tensorflow.loop import Loop

_NOT_OFFERED: Mapping[str, str] = {
    "compile": "graphs are always compiled by tf.function; leave compile out",
    "ema_decay": "leave ema_decay out, or train with gnomon.train.supervised.SupervisedTrainer",
    "async_checkpoints": "set async_checkpoints=false",
}


class TensorFlowTrainer(Component):
    """Trains `model` on a dataset of (input, target); the settings mean what they mean for `SupervisedTrainer`.

    `model` is a mapping such as {name: mlp, hidden: [128], num_classes: 10}, a keras.Model, or a function that makes
    one, which is called after the generators were seeded. A dataset has `__len__` and `__getitem__`, or is a pair of
    arrays. Strategies are `single`, `mirrored` and `multi_worker`.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | SupervisedConfig,
        model: Callable[[], Any] | Mapping[str, Any] | str | ModelSettings,
        loss: str = "cross_entropy",
        metrics: Sequence[str] = (),
        optimizer: str = "adamw",
    ) -> None:
        check_installed()
        self.config, self.objective = read_supervised(config, loss, metrics, optimizer)
        self._model = model if callable(model) else read_model(model)
        _check_offered(self.config)

    def execute(self, train: Any, validation: Any = None, test: Any = None) -> tuple[Any, Any, Any, Any]:
        """Train, evaluate on `test` at the end if there is one, and return (train, validation, test, keras model).

        Without a `validation` dataset nothing is evaluated on the way. Raises InterruptedRunError after a signal, once
        the checkpoint is written; TrainingError for a loss that is not finite and for too little memory; LaunchError
        when a worker is lost; ConfigError, DataError, CheckpointError and RunDirectoryError as their names say.
        """
        if train is None:
            raise DataError("The trainer was given no training data (None). The step before must return a dataset.")
        seed = self.config.seed
        examples = Examples(train, "training", seed)
        config = self.config.for_examples(len(examples))
        if config.eval_every and validation is None:
            raise ConfigError(
                f"eval_every={config.eval_every}, but there is no validation data. "
                "Give it as the second input of the trainer, or set eval_every=0."
            )
        held_out = {
            role: Examples(data, role, seed)
            for role, data in (("validation", validation), ("test", test))
            if data is not None
        }
        keras()
        errors = tensorflow().errors
        distribution = create_distribution(config)  # several workers bring a handler of SIGTERM, which must not stay
        with StopFlag() as flag:
            loop = Loop(config, self.objective, self._model, distribution, examples, held_out)
            try:
                loop.run(flag)
            except errors.ResourceExhaustedError as error:
                raise TrainingError(
                    f"Out of memory in step {loop.step + 1}: {str(error).splitlines()[0]} Double the accumulation, "
                    "which gives the same result, lower batch, or use precision=bf16."
                ) from error
            except (errors.UnavailableError, errors.AbortedError, errors.DeadlineExceededError) as error:
                raise LaunchError(
                    f"Another worker was lost in step {loop.step + 1}: {str(error).splitlines()[0]} "
                    "See the logs of the others, then continue with resume=true."
                ) from error
            finally:
                loop.close()
        return train, validation, test, loop.model


def _check_offered(config: SupervisedConfig) -> None:
    """Raise ConfigError for a setting that this trainer would not honour."""
    for name, advice in _NOT_OFFERED.items():
        value = getattr(config, name)
        if value != type(config).model_fields[name].default:
            raise ConfigError(f"{name}={value}, which TensorFlowTrainer does not offer: {advice}.")
    if config.precision == "fp16":
        raise ConfigError("precision=fp16, which TensorFlowTrainer does not offer: set precision=bf16 or fp32.")
