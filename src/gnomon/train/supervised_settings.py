"""Settings of supervised training that mean the same in every framework: model, loss, metrics, optimizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AliasChoices, BeforeValidator, Field, NonNegativeInt, PositiveInt, model_validator

from gnomon.errors import ConfigError, DataError, did_you_mean
from gnomon.spec import Noun
from gnomon.train.config import TrainingConfig

Loss = Literal["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber"]
Metric = Literal["accuracy", "mse", "mae", "rmse"]
Optimizer = Literal["adam", "adamw", "sgd"]

CLASSIFICATION_LOSSES = ("cross_entropy", "binary_cross_entropy")


def _named(kind: str, names: Any) -> BeforeValidator:
    """Return a validator that refuses an unknown name and says the nearest known one."""
    known = get_args(names)

    def check(value: Any) -> Any:
        if value not in known:
            raise ValueError(f"not a known {kind}. {did_you_mean(str(value), known)}")
        return value

    return BeforeValidator(check)


class SupervisedConfig(TrainingConfig):
    """How long and how to train on pairs of inputs and targets; exactly one of `num_steps` and `epochs` is given.

    An epoch deals every example at most once: an incomplete last batch is left out.
    """

    num_steps: NonNegativeInt = Field(default=0, description="optimizer steps; 0: as many as `epochs` has")
    epochs: PositiveInt | None = Field(default=None, description="passes over the training data, instead of num_steps")
    batch: PositiveInt = Field(default=32, description="examples per optimizer step, over all ranks")
    weight_decay: float = Field(default=0.0, ge=0.0, description="of matrices; needs optimizer=adamw")
    betas: tuple[float, float] = (0.9, 0.999)
    grad_clip: float | None = Field(default=None, gt=0.0, description="largest norm of all gradients; None: none")
    lr_schedule: Literal["cosine", "linear", "constant"] = Field(default="constant", description="after the warm-up")
    eval_batches: PositiveInt | None = Field(
        default=None, description="micro-batches per evaluation and rank; None: all"
    )

    @model_validator(mode="after")
    def _check_schedule(self) -> Self:
        if bool(self.num_steps) == (self.epochs is not None):
            found = f"num_steps={self.num_steps} and epochs={self.epochs}" if self.num_steps else "neither"
            raise ValueError(f"exactly one of num_steps and epochs is needed, found {found}")
        if self.num_steps and self.warmup_steps > self.num_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} exceeds num_steps={self.num_steps}; "
                f"set warmup_steps={self.num_steps // 10}"
            )
        return self

    def for_examples(self, count: int) -> Self:
        """Return these settings with `num_steps` for `count` training examples; raise DataError for less than a batch.

        Raises SpecError when the warm-up is longer than the epochs.
        """
        if count < self.batch:
            raise DataError(
                f"batch={self.batch}, but the training data has only {count} example(s). Give more, or lower batch."
            )
        if self.epochs is None:
            return self
        changed = {"num_steps": self.epochs * (count // self.batch), "epochs": None}
        return type(self).from_mapping({**self.to_mapping(), **changed})


_NUM_OUTPUTS: Any = Field(
    validation_alias=AliasChoices("num_outputs", "num_classes"), description="classes, or numbers to predict"
)


class MLPSettings(Noun):
    """Flatten, then a linear layer and a ReLU per hidden size, then a linear layer to the outputs."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (128,)
    num_outputs: PositiveInt = _NUM_OUTPUTS


class CNNSettings(Noun):
    """Images (height, width) or (channels, height, width) through blocks, then flattened to one linear layer.

    A block per entry of `channels`: 3x3 convolution with padding 1, ReLU, 2x2 max pooling that drops an odd edge.
    """

    name: Literal["cnn"] = "cnn"
    channels: tuple[PositiveInt, ...] = Field(default=(16, 32), min_length=1)
    num_outputs: PositiveInt = _NUM_OUTPUTS

    def check_input(self, height: int, width: int) -> None:
        """Raise ConfigError for images that the poolings would shrink to nothing."""
        smallest = 2 ** len(self.channels)
        if min(height, width) < smallest:
            raise ConfigError(
                f"model.channels has {len(self.channels)} blocks, each halving the image, but images are "
                f"{height}x{width}. Give at most {max(0, min(height, width).bit_length() - 1)} entries."
            )


class LSTMSettings(Noun):
    """Sequences (time, features) through stacked LSTM layers; the last output goes to one linear layer."""

    name: Literal["lstm"] = "lstm"
    hidden: PositiveInt = 64
    num_layers: PositiveInt = 1
    num_outputs: PositiveInt = _NUM_OUTPUTS


ModelSettings = MLPSettings | CNNSettings | LSTMSettings
_MODELS: dict[str, type[ModelSettings]] = {"mlp": MLPSettings, "cnn": CNNSettings, "lstm": LSTMSettings}


def read_model(model: str | Mapping[str, Any] | ModelSettings) -> ModelSettings:
    """Return the settings of the model that a mapping with `name` describes; raise ConfigError or SpecError."""
    if isinstance(model, MLPSettings | CNNSettings | LSTMSettings):
        return model
    mapping = {"name": model} if isinstance(model, str) else model
    if not isinstance(mapping, Mapping) or "name" not in mapping:
        raise ConfigError(
            f"model is {model!r}; it needs a name ({', '.join(_MODELS)}) as in "
            "{name: mlp, hidden: [128], num_classes: 10}, or a _target_ that makes it."
        )
    name = mapping["name"]
    if name not in _MODELS:
        raise ConfigError(f"model.name='{name}' is not known. {did_you_mean(str(name), _MODELS)}")
    return _MODELS[name].from_mapping(mapping, "model")


class Objective(Noun):
    """What is minimised, what is reported beside it, and how the weights are moved.

    Losses are means over a batch. Both cross-entropies (nat) take logits: `cross_entropy` (batch, classes) and whole
    numbers (batch,), `binary_cross_entropy` logits and targets of 0 and 1 of one shape. `huber` turns linear at 1.
    Metrics are over all examples of the evaluated data. `adam`, `adamw` and `sgd` (no momentum) have epsilon 1e-8.
    """

    loss: Annotated[Loss, _named("loss", Loss)] = "cross_entropy"
    metrics: tuple[Annotated[Metric, _named("metric", Metric)], ...] = ()
    optimizer: Annotated[Optimizer, _named("optimizer", Optimizer)] = "adamw"

    EPSILON: ClassVar[float] = 1e-8

    @property
    def classifies(self) -> bool:
        """True for losses whose predictions are classes."""
        return self.loss in CLASSIFICATION_LOSSES

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        for metric in self.metrics:
            if (metric == "accuracy") != self.classifies:
                fitting = "accuracy" if self.classifies else "mse, mae, rmse"
                raise ValueError(f"metric '{metric}' does not fit loss '{self.loss}'; fitting: {fitting}")
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metrics={list(self.metrics)} names one twice")
        return self


def read_supervised(
    config: Mapping[str, Any] | SupervisedConfig, loss: str, metrics: Sequence[str], optimizer: str
) -> tuple[SupervisedConfig, Objective]:
    """Return the validated arguments of a trainer; raise SpecError naming each wrong key, ConfigError for a misfit."""
    if not isinstance(config, SupervisedConfig):
        config = SupervisedConfig.from_mapping(config, "config")
    listed = [metrics] if isinstance(metrics, str) else list(metrics)
    objective = Objective.from_mapping({"loss": loss, "metrics": listed, "optimizer": optimizer})
    if config.weight_decay and objective.optimizer != "adamw":
        raise ConfigError(
            f"weight_decay={config.weight_decay:g}, but optimizer={objective.optimizer} has no decoupled decay. "
            "Set optimizer=adamw, or weight_decay=0."
        )
    return config, objective
