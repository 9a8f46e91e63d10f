"""A normalising flow on lattice fields: affine couplings between the two colours of a checkerboard."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class CheckerboardCoupling(nn.Module):
    """Scales and shifts the sites of one colour by a convolutional network of the other (arXiv 1605.08803)."""

    mask: Tensor

    def __init__(self, size: int, parity: int, hidden: int) -> None:
        super().__init__()
        sites = torch.arange(size)
        frozen = (sites[:, None] + sites[None, :] + parity) % 2
        self.register_buffer("mask", frozen.float())
        self.net = nn.Sequential(
            nn.Conv2d(1, hidden, 3, padding=1, padding_mode="circular"),
            nn.LeakyReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, padding_mode="circular"),
            nn.LeakyReLU(),
            nn.Conv2d(hidden, 2, 3, padding=1, padding_mode="circular"),
        )
        nn.init.zeros_(self.net[-1].weight)  # type: ignore[arg-type]  # the flow starts as the identity
        nn.init.zeros_(self.net[-1].bias)  # type: ignore[arg-type]

    def forward(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new field and the logarithm of the Jacobian's determinant (batch,)."""
        scale, shift = self.net((self.mask * phi)[:, None]).unbind(1)
        scale = (1 - self.mask) * torch.tanh(scale)
        return phi * torch.exp(scale) + (1 - self.mask) * shift, scale.sum((1, 2))


class Flow(nn.Module):
    """Noise (batch, size, size) to fields of the same shape and their log-density (batch,)."""

    def __init__(self, size: int, layers: int, hidden: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(CheckerboardCoupling(size, index % 2, hidden) for index in range(layers))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return fields and log q(field), by the change of variables."""
        phi = noise
        log_q = -0.5 * (noise**2 + math.log(2 * math.pi)).sum((1, 2))
        for coupling in self.couplings:
            phi, log_determinant = coupling(phi)
            log_q = log_q - log_determinant
        return phi, log_q
