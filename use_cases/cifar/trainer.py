"""A small residual network for pictures of 32 x 32 pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

GROUPS = 4


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2015, arXiv 1512.03385).

    Group normalisation (arXiv 1803.08494) where that paper has batch normalisation: it does not depend on the other
    samples, so that any number of ranks computes the same.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(GROUPS, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, after),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        return (self.net(images) + self.shortcut(images)).relu()


class ResNet(nn.Module):
    """Pictures (batch, 3, 32, 32) to outputs (batch, num_classes); each entry of `channels` halves the picture."""

    def __init__(self, channels: list[int], blocks: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        stem = nn.Conv2d(3, channels[0], 3, stride=2, padding=1, bias=False)
        stages = [ResidualBlock(channels[0], channels[0], 1) for _ in range(blocks)]
        for before, after in pairwise(channels):
            stages += [ResidualBlock(before, after, 2), *(ResidualBlock(after, after, 1) for _ in range(blocks - 1))]
        self.features = nn.Sequential(stem, nn.GroupNorm(GROUPS, channels[0]), nn.ReLU(), *stages)
        self.head = nn.Linear(channels[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs."""
        return self.head(self.features(images - 0.5).mean((2, 3)))
