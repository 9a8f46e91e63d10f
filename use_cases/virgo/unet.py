"""A one-dimensional U-Net (Ronneberger et al. 2015, arXiv 1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDE = 2


class UNet(nn.Module):
    """Channels (batch, channels, samples) to one series (batch, samples); `samples` divides by 2^depth.

    Each level halves the samples and adds `width` channels; on the way back each level also sees what it made going
    down. The kernels are long, because a resonance that rings is an effect of the past.
    """

    def __init__(self, channels: int = 3, width: int = 16, depth: int = 3, kernel: int = 9) -> None:
        super().__init__()
        sizes = [width * (level + 1) for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _block(before, after, kernel) for before, after in zip([channels, *sizes], sizes, strict=False)
        )
        self.rise = nn.ModuleList(
            nn.ConvTranspose1d(above, below, STRIDE, STRIDE)
            for below, above in zip(sizes[-2::-1], sizes[:0:-1], strict=True)
        )
        self.up = nn.ModuleList(_block(2 * size, size, kernel) for size in sizes[-2::-1])
        self.head = nn.Conv1d(width, 1, 1)

    def forward(self, witnesses: Tensor) -> Tensor:
        """Return the series."""
        seen: list[Tensor] = []
        values = self.down[0](witnesses)
        for block in self.down[1:]:
            seen.append(values)
            values = block(nn.functional.avg_pool1d(values, STRIDE))
        for rise, block in zip(self.rise, self.up, strict=True):
            values = block(torch.cat([rise(values), seen.pop()], 1))
        return self.head(values).squeeze(1)


def _block(before: int, after: int, kernel: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (before, after):
        layers += [nn.Conv1d(inputs, after, kernel, padding=kernel // 2), nn.GELU()]
    return nn.Sequential(*layers)
