"""The networks and optimizers that a configuration names, in Keras."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon.errors import ConfigError, DataError
from gnomon.train.examples import Array
from gnomon.train.supervised_settings import (
    CNNSettings,
    LSTMSettings,
    MLPSettings,
    ModelSettings,
    Objective,
    SupervisedConfig,
)
from gnomon.train.tensorflow.distribution import Distribution
from gnomon.train.tensorflow.library import keras, tensorflow


def create_model(source: Any, example: Array, distribution: Distribution) -> tuple[Any, tuple[int, ...]]:
    """Return the Keras model and the shape of one output; call it in the scope of the strategy.

    `source` is `ModelSettings`, a function that makes a model, or a model that has no weights yet (with one replica it
    may have). `example` is one input (without a batch axis). Raises ConfigError for anything else.
    """
    model = _make(source, example.shape, distribution)
    try:
        output = model(example[np.newaxis], training=False)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"The model {model.name} does not take an input of shape {example.shape}: {str(error).splitlines()[0]}"
        ) from error
    shape = tuple(getattr(output, "shape", ()))
    if not shape or shape[0] != 1:
        raise ConfigError(f"The model {model.name} must return one tensor (batch, ...), found {type(output).__name__}.")
    if not model.trainable_variables:
        raise ConfigError(f"The model {model.name} has no trainable weights.")
    return model, shape[1:]


def create_optimizer(config: SupervisedConfig, objective: Objective, model: Any) -> Any:
    """Return the optimizer, with its state made; vectors and biases are not decayed."""
    optimizers = keras().optimizers
    if objective.optimizer == "sgd":
        optimizer = optimizers.SGD(config.learning_rate)
    else:
        beta_1, beta_2 = config.betas
        shared = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": objective.EPSILON}
        if objective.optimizer == "adam":
            optimizer = optimizers.Adam(config.learning_rate, **shared)
        else:
            optimizer = optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, **shared)
            optimizer.exclude_from_weight_decay([each for each in model.trainable_variables if len(each.shape) < 2])
    optimizer.build(model.trainable_variables)
    return optimizer


def _make(source: Any, input_shape: Sequence[int], distribution: Distribution) -> Any:
    if isinstance(source, MLPSettings | CNNSettings | LSTMSettings):
        return _network(source, input_shape)
    model_class = keras().Model
    if isinstance(source, model_class):
        if source.variables and distribution.replicas > 1:
            raise ConfigError(
                f"The model {source.name} has its weights already, but strategy={distribution.name} must make them on "
                "every replica. Add _partial_: true to the model's configuration (or give a function), so that the "
                "trainer makes it."
            )
        return source
    model = source()
    if not isinstance(model, model_class):
        raise ConfigError(f"The model must be a keras.Model, but {source!r} made a {type(model).__name__}.")
    return model


def _network(settings: ModelSettings, input_shape: Sequence[int]) -> Any:
    if isinstance(settings, MLPSettings):
        layers = _mlp(settings)
    elif isinstance(settings, CNNSettings):
        layers = _cnn(settings, input_shape)
    else:
        layers = _lstm(settings, input_shape)
    library = keras()
    head = library.layers.Dense(settings.num_outputs, dtype="float32", name="head")
    return library.Sequential([library.Input(tuple(input_shape)), *layers, head], name=settings.name)


def _mlp(settings: MLPSettings) -> list[Any]:
    layers = keras().layers
    return [layers.Flatten(), *(layers.Dense(size, activation="relu") for size in settings.hidden)]


def _cnn(settings: CNNSettings, input_shape: Sequence[int]) -> list[Any]:
    """Return the blocks; images come with the channels first, and TensorFlow's CPU kernels want them last."""
    layers = keras().layers
    if len(input_shape) not in (2, 3):
        raise ConfigError(f"model.name=cnn needs images, but an input has the shape {tuple(input_shape)}.")
    settings.check_input(*input_shape[-2:])
    blocks: list[Any] = [layers.Reshape((*input_shape, 1)) if len(input_shape) == 2 else layers.Permute((2, 3, 1))]
    for count in settings.channels:
        blocks += [layers.Conv2D(count, 3, padding="same", activation="relu"), layers.MaxPooling2D(2)]
    return [*blocks, layers.Flatten()]


def _lstm(settings: LSTMSettings, input_shape: Sequence[int]) -> list[Any]:
    layers = keras().layers
    if len(input_shape) != 2:
        raise ConfigError(
            f"model.name=lstm needs inputs (time, features), but an input has the shape {tuple(input_shape)}."
        )
    last = settings.num_layers - 1
    return [layers.LSTM(settings.hidden, return_sequences=index < last) for index in range(settings.num_layers)]


def first_not_finite(model: Any) -> str | None:
    """Return the path of a trainable variable with a value that is not finite, or None."""
    tf = tensorflow()
    for variable in model.trainable_variables:
        if not tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable.value))):
            return str(variable.path)
    return None


def fit_targets(targets: Array, output_shape: tuple[int, ...], objective: Objective) -> Array:
    """Return a batch of targets as the loss takes them; raise DataError where they do not fit the model's outputs."""
    if objective.loss == "cross_entropy":
        return _class_numbers(targets, output_shape)
    if targets[0].size != int(np.prod(output_shape)):
        raise DataError(
            f"A target has the shape {targets.shape[1:]}, but the model returns {output_shape}. "
            "Set the outputs of the model (num_outputs) to the numbers of a target."
        )
    fitted = targets.reshape(len(targets), *output_shape).astype(np.float32)
    if objective.loss == "binary_cross_entropy" and not ((fitted >= 0) & (fitted <= 1)).all():
        raise DataError("loss=binary_cross_entropy needs targets from 0 to 1; some lie outside.")
    return fitted


def _class_numbers(targets: Array, output_shape: tuple[int, ...]) -> Array:
    if targets.dtype.kind not in "iub" or targets.ndim != 1 or len(output_shape) != 1:
        raise DataError(
            f"loss=cross_entropy needs one whole number per example and one output per class, but a target has the "
            f"shape {targets.shape[1:]} and the type {targets.dtype}, and the model returns {output_shape}. "
            "For other numbers set loss=mse, mae or huber."
        )
    lowest, highest = int(targets.min()), int(targets.max())
    if lowest < 0 or highest >= output_shape[0]:
        wrong = lowest if lowest < 0 else highest
        raise DataError(
            f"A target is class {wrong}, but the model has {output_shape[0]} classes, numbered from 0. "
            "Raise num_classes, or number the classes from 0."
        )
    return targets.astype(np.int32)
