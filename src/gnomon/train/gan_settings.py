"""Settings of adversarial training: two networks, their losses, and how the quality of samples is measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gnomon.errors import ConfigError, did_you_mean
from gnomon.spec import Noun
from gnomon.train.supervised_settings import SupervisedConfig

AdversarialLoss = Literal["non_saturating", "hinge", "wasserstein"]


class GANConfig(SupervisedConfig):
    """How long and how to train a generator against a discriminator; `learning_rate` is the generator's.

    `eval_every` measures the quality of generated samples, which needs no validation data.
    """

    learning_rate: PositiveFloat = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    latent_dim: PositiveInt = Field(default=64, description="numbers that the generator makes a sample of")
    adversarial_loss: AdversarialLoss = "non_saturating"
    gradient_penalty: NonNegativeFloat | None = Field(
        default=None, description="weight of the penalty of the wasserstein loss, which alone has one; None: 10"
    )
    discriminator_learning_rate: PositiveFloat | None = Field(default=None, description="None: that of the generator")
    discriminator_steps: PositiveInt = Field(default=1, description="steps of the discriminator per generator step")
    quality_samples: int = Field(default=1000, ge=16, description="real and generated samples that are compared")
    image_every: NonNegativeInt = Field(default=0, description="record a grid of generated images; 0: never")
    image_count: PositiveInt = Field(default=64, description="images in the grid")

    @model_validator(mode="after")
    def _check_precision(self) -> Self:
        if self.precision == "fp16":
            raise ValueError("precision=fp16 needs a scale per loss, of which there are two here; set bf16 or fp32")
        return self

    @model_validator(mode="after")
    def _check_penalty(self) -> Self:
        if self.gradient_penalty and self.adversarial_loss != "wasserstein":
            raise ValueError(
                f"gradient_penalty={self.gradient_penalty:g} has no effect with "
                f"adversarial_loss={self.adversarial_loss}; leave it out, or set adversarial_loss=wasserstein"
            )
        return self

    @property
    def penalty(self) -> float:
        """The weight of the gradient penalty; 0 where there is none."""
        if self.adversarial_loss != "wasserstein":
            return 0.0
        return 10.0 if self.gradient_penalty is None else self.gradient_penalty


class GeneratorSettings(Noun):
    """Linear layers with a ReLU after each hidden one; `output` maps to the range of the samples."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (128, 128)
    output: Literal["none", "sigmoid", "tanh"] = Field(default="none", description="sigmoid: 0 to 1; tanh: -1 to 1")


class DiscriminatorSettings(Noun):
    """Linear layers with a leaky ReLU after each hidden one, and one number out: the larger, the more real."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[PositiveInt, ...] = (128, 128)


def read_network(kind: type[Noun], value: Any, where: str) -> Any:
    """Return the settings of a network; raise ConfigError or SpecError for what describes none."""
    if isinstance(value, kind):
        return value
    mapping = {"name": value} if isinstance(value, str) else value
    if not isinstance(mapping, Mapping):
        raise ConfigError(
            f"{where} is {value!r}; it needs a mapping such as {{name: mlp, hidden: [128]}}, or a _target_."
        )
    name = str(mapping.get("name", "mlp"))
    if name != "mlp":
        raise ConfigError(f"{where}.name='{name}' is not known. {did_you_mean(name, ['mlp'])}")
    return kind.from_mapping(mapping, where)
