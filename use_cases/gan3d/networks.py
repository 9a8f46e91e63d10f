"""A convolutional generator and critic of showers."""

from __future__ import annotations

import torch
from dataloader import SCALE, shares_of
from observables import observables
from torch import Tensor, nn

from gnomon.errors import ConfigError


class ShowerGenerator(nn.Module):
    """Latent numbers and a condition (batch, latent_dim + 1) to samples (batch, 2, layers, cells, cells).

    Two transposed convolutions that double each axis make a shower, which is scaled to the response that a linear
    layer says; the condition is copied into the second channel.
    """

    def __init__(self, latent_dim: int, shape: tuple[int, int, int], channels: int = 16) -> None:
        super().__init__()
        if any(size % 4 for size in shape):
            raise ConfigError(f"Showers of {shape[0]} layers and {shape[1]} cells; both must be multiples of 4.")
        start = tuple(size // 4 for size in shape)
        self.body = nn.Sequential(nn.Linear(latent_dim + 1, 128), nn.LeakyReLU(0.2))
        self.log_response = nn.Linear(128, 1)
        self.net = nn.Sequential(
            nn.Linear(128, 2 * channels * start[0] * start[1] * start[2]),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (2 * channels, *start)),
            nn.ConvTranspose3d(2 * channels, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose3d(channels, 1, 4, stride=2, padding=1),
        )
        self.bias = nn.Parameter(torch.full(shape, 0.1))

    def forward(self, latent: Tensor) -> Tensor:
        """Return the samples; cells without energy are exactly zero."""
        hidden = self.body(latent)
        roots = torch.relu(self.net(hidden)[:, 0] + self.bias)
        total = (roots**2).sum((1, 2, 3), keepdim=True) + 1e-6
        roots = roots * (SCALE * torch.exp(0.1 * self.log_response(hidden)).view(-1, 1, 1, 1) / total).sqrt()
        return torch.stack([roots, latent[:, -1].view(-1, 1, 1, 1).expand_as(roots)], dim=1)


class ShowerCritic(nn.Module):
    """Samples (batch, 2, layers, cells, cells) to scores (batch, 1).

    Beside convolutions it is given the energy of each layer, the observables, and the sums of the roots over each row
    and column, which show small energies: in units of their deviation among `real` samples. A convolution alone hardly
    sees that a response is wrong by a percent.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, int, int], channels: int, real: Tensor) -> None:
        super().__init__()
        found = _features(real)
        self.register_buffer("mean", found.mean(0))
        self.register_buffer("deviation", found.std(0).clamp_min(1e-3))
        layers, cells, _ = shape
        self.net = nn.Sequential(
            nn.Conv3d(2, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv3d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        size = 2 * channels * (layers // 4) * (cells // 4) ** 2 + len(self.mean) + 1
        self.head = nn.Sequential(nn.Linear(size, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))

    def forward(self, samples: Tensor) -> Tensor:
        """Return the scores."""
        features = (_features(samples) - self.mean) / self.deviation
        condition = samples[:, 1, 0, 0, :1]
        return self.head(torch.cat([self.net(samples), features, condition], dim=1))


def _features(samples: Tensor) -> Tensor:
    """Return the numbers that the critic is given (count, layers + 2 x cells + 4)."""
    shares, roots = shares_of(samples), samples[:, 0]
    return torch.cat([shares.sum((2, 3)), roots.sum((1, 3)), roots.sum((1, 2)), observables(shares)], dim=1)
