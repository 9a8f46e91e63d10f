"""How close generated samples are to real ones, without a network that would have to be downloaded.

Samples are compared in the space of the principal components of the real ones (see `FeatureSpace`), scaled so that
distances are of order 1. Formulas and sources are with each function; all take float64 tensors (samples, features).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gnomon.errors import DataError

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
NEIGHBOURS = 5
PROJECTIONS = 256
MAX_COMPONENTS = 64


class FeatureSpace:
    """The leading principal components of real samples, at most 64, in units of their root mean square norm."""

    def __init__(self, real: Tensor) -> None:
        """Take real samples (samples, ...); raise DataError if they are all alike."""
        flat = real.flatten(1).double()
        self._mean = flat.mean(0)
        _, _, directions = torch.linalg.svd(flat - self._mean, full_matrices=False)
        self._directions = directions[:MAX_COMPONENTS].T
        scale = ((flat - self._mean) @ self._directions).square().sum(1).mean().sqrt()
        if not scale > 0.0:
            raise DataError("The real samples are all alike, so the quality of generated ones has no measure.")
        self._directions = self._directions / scale

    def project(self, samples: Tensor) -> Tensor:
        """Return the features (samples, components)."""
        return (samples.flatten(1).double() - self._mean) @ self._directions


def quality(real: Tensor, generated: Tensor, seed: int = 0) -> dict[str, float]:
    """Return mmd, sliced_wasserstein, density and coverage of equally many real and generated samples (samples, ...).

    Raises DataError for samples that are not finite, and for fewer than 16.
    """
    if len(real) < 16 or len(generated) != len(real):
        raise DataError(
            f"{len(real)} real and {len(generated)} generated samples; give at least 16, and as many of each."
        )
    if not generated.isfinite().all():
        raise DataError("The generator makes samples that are not finite. Lower the learning rates.")
    space = FeatureSpace(real)
    x, y = space.project(real), space.project(generated)
    density, coverage = density_and_coverage(x, y)
    return {
        "mmd": mmd(x, y),
        "sliced_wasserstein": sliced_wasserstein(x, y, seed),
        "density": density,
        "coverage": coverage,
    }


def mmd(real: Tensor, generated: Tensor) -> float:
    """Return the unbiased squared maximum mean discrepancy, 0 on average where both have one distribution.

    sum_{i != j} k(x_i, x_j) / m(m-1) + sum_{i != j} k(y_i, y_j) / n(n-1) - 2 sum_{ij} k(x_i, y_j) / mn
    (Gretton et al. 2012, JMLR 13, equation 3), with k the mean of exp(-d**2 / (2 (s sigma)**2)) over s in SCALES,
    and sigma the median distance of the real samples. It can be negative.
    """
    within_real = torch.cdist(real, real)
    sigma = within_real[_off_diagonal(len(real))].median()
    kernels = [
        torch.stack([torch.exp(-0.5 * (distance / (scale * sigma)).square()) for scale in SCALES]).mean(0)
        for distance in (within_real, torch.cdist(generated, generated), torch.cdist(real, generated))
    ]
    m, n = len(real), len(generated)
    same = kernels[0][_off_diagonal(m)].sum() / (m * (m - 1)) + kernels[1][_off_diagonal(n)].sum() / (n * (n - 1))
    return float(same - 2.0 * kernels[2].mean())


def sliced_wasserstein(real: Tensor, generated: Tensor, seed: int = 0) -> float:
    """Return the mean over random directions of the 1-Wasserstein distance of the projections.

    In one dimension that is the mean distance of the sorted values (Bonneel et al. 2015,
    doi 10.1007/s10851-014-0506-3).
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(real.shape[1], PROJECTIONS, generator=generator, dtype=real.dtype).to(real.device)
    directions = directions / directions.norm(dim=0)
    sorted_real, sorted_generated = ((samples @ directions).sort(dim=0).values for samples in (real, generated))
    return float((sorted_real - sorted_generated).abs().mean())


def density_and_coverage(real: Tensor, generated: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Return how densely generated samples lie among the real ones, and the share of real samples that they cover.

    Each real sample has a ball that reaches to its 5th nearest real neighbour. Density is the mean number of balls
    that a generated sample lies in, over 5; coverage the share of balls with a generated sample in them
    (Naeem et al. 2020, arXiv 2002.09797, equations 3 and 5). Where both have one distribution, the density is 1 on
    average, and the coverage of many samples 1 - 2**-5 = 0.97.
    """
    radii = torch.cdist(real, real).kthvalue(neighbours + 1, dim=1).values  # each is its own nearest
    inside = torch.cdist(real, generated) < radii[:, None]
    return float(inside.sum(0).double().mean() / neighbours), float(inside.any(1).double().mean())


def _off_diagonal(size: int) -> Tensor:
    return ~torch.eye(size, dtype=torch.bool)
