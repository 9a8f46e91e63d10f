"""Adversarial losses over scores, of which larger ones mean "real"; all are means over the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Scores = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What the discriminator minimises, of the scores of real and generated samples, and what the generator does."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LOSSES = {
    # Goodfellow et al. 2014, arXiv 1406.2661: binary cross-entropy, for the generator in its non-saturating form
    "non_saturating": Losses(
        discriminator=lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        generator=lambda fake: F.softplus(-fake).mean(),
    ),
    # Lim and Ye 2017, arXiv 1705.02894
    "hinge": Losses(
        discriminator=lambda real, fake: F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean(),
        generator=lambda fake: -fake.mean(),
    ),
    # Arjovsky et al. 2017, arXiv 1701.07875; with gradient_penalty
    "wasserstein": Losses(
        discriminator=lambda real, fake: fake.mean() - real.mean(),
        generator=lambda fake: -fake.mean(),
    ),
}


def gradient_penalty(scores: Scores, real: Tensor, fake: Tensor, shares: Tensor) -> Tensor:
    """Return the mean of (|gradient of the score| - 1)**2 between real and generated samples.

    `shares` (batch,) from 0 to 1 say where between the two (Gulrajani et al. 2017, arXiv 1704.00028, equation 3).
    """
    shares = shares.view(-1, *[1] * (real.dim() - 1))
    between = (shares * real + (1.0 - shares) * fake).requires_grad_(True)
    (gradient,) = torch.autograd.grad(scores(between).sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1.0).square().mean()
