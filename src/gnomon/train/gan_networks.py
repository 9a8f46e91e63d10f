"""The small generator and discriminator that a configuration can name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import nn

from gnomon.train.gan_settings import DiscriminatorSettings, GeneratorSettings

_OUTPUTS: dict[str, type[nn.Module]] = {"none": nn.Identity, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}


def create_generator(settings: GeneratorSettings, latent_dim: int, sample_shape: Sequence[int]) -> nn.Module:
    """Return the network from (batch, latent_dim) to (batch, *sample_shape)."""
    layers = _linear([latent_dim, *settings.hidden], nn.ReLU)
    last = nn.Linear([latent_dim, *settings.hidden][-1], prod(sample_shape))
    return nn.Sequential(*layers, last, _OUTPUTS[settings.output](), nn.Unflatten(1, tuple(sample_shape)))


def create_discriminator(settings: DiscriminatorSettings, sample_shape: Sequence[int]) -> nn.Module:
    """Return the network from (batch, *sample_shape) to scores (batch, 1)."""
    sizes = [prod(sample_shape), *settings.hidden]
    return nn.Sequential(nn.Flatten(), *_linear(sizes, lambda: nn.LeakyReLU(0.2)), nn.Linear(sizes[-1], 1))


def _linear(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    return [layer for before, after in pairwise(sizes) for layer in (nn.Linear(before, after), activation())]
