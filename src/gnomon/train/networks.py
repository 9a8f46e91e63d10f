"""The small networks that a configuration can name, in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from gnomon.errors import ConfigError
from gnomon.train.supervised_settings import CNNSettings, LSTMSettings, MLPSettings, ModelSettings


def create_network(settings: ModelSettings, input_shape: Sequence[int]) -> nn.Module:
    """Return the network for inputs (batch, *input_shape); raise ConfigError when they do not fit it."""
    if isinstance(settings, MLPSettings):
        return _mlp(settings, prod(input_shape))
    if isinstance(settings, CNNSettings):
        return CNN(settings, input_shape)
    return LSTM(settings, input_shape)


def _mlp(settings: MLPSettings, inputs: int) -> nn.Module:
    sizes = [inputs, *settings.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], settings.num_outputs))


class CNN(nn.Module):
    """Images (batch, height, width) or (batch, channels, height, width) to outputs (batch, num_outputs)."""

    def __init__(self, settings: CNNSettings, input_shape: Sequence[int]) -> None:
        super().__init__()
        if len(input_shape) not in (2, 3):
            raise ConfigError(f"model.name=cnn needs images, but an input has the shape {tuple(input_shape)}.")
        planes, height, width = (1, *input_shape) if len(input_shape) == 2 else input_shape
        settings.check_input(height, width)
        self.add_planes = len(input_shape) == 2
        channels = [planes, *settings.channels]
        layers: list[nn.Module] = []
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        shrink = 2 ** len(settings.channels)
        self.head = nn.Linear(channels[-1] * (height // shrink) * (width // shrink), settings.num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        return self.head(self.features(images.unsqueeze(1) if self.add_planes else images))


class LSTM(nn.Module):
    """Sequences (batch, time, features) to outputs (batch, num_outputs), read from the last step."""

    def __init__(self, settings: LSTMSettings, input_shape: Sequence[int]) -> None:
        super().__init__()
        if len(input_shape) != 2:
            raise ConfigError(
                f"model.name=lstm needs inputs (time, features), but an input has the shape {tuple(input_shape)}."
            )
        self.lstm = nn.LSTM(input_shape[1], settings.hidden, settings.num_layers, batch_first=True)
        self.head = nn.Linear(settings.hidden, settings.num_outputs)

    def forward(self, sequences: Tensor) -> Tensor:
        """Return the outputs."""
        return self.head(self.lstm(sequences)[0][:, -1])
