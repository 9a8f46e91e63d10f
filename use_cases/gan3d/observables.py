"""What a physicist would compare between two sets of showers."""

from __future__ import annotations

import torch
from dataloader import as_sample, conditions_of, shares_of
from torch import Tensor

ENERGY_BINS = 10


def observables(shares: Tensor) -> Tensor:
    """Return, per shower (count, 4): response, depth of the centre, longitudinal and lateral spread, in cells.

    The response is the energy seen over that of the particle; the others are moments of the seen energy.
    """
    total = shares.sum((1, 2, 3)).clamp_min(1e-6)
    layers, rows, columns = (shares.sum(axes) / total[:, None] for axes in ((2, 3), (1, 3), (1, 2)))
    depth, spread = _moments(layers)
    lateral = (_moments(rows)[1] ** 2 + _moments(columns)[1] ** 2).sqrt()
    return torch.stack([total, depth, spread, lateral], dim=1)


def compare(real: Tensor, made: Tensor) -> dict[str, float]:
    """Return how far samples are from real ones; all are 0 for two sets of one distribution, up to their size.

    observable_distance: mean over observables and the lower and upper half of the energies of the 1-Wasserstein
    distance, in standard deviations of the real ones. response_error: the larger of both halves' relative errors of
    the mean response. longitudinal_distance and lateral_distance: half the sum of the differences of mean profiles.
    """
    distances, errors, profiles = [], [], []
    for side in (-1.0, 1.0):
        x, y = (shares_of(each[side * conditions_of(each) > 0]).double() for each in (real, made))
        a, b = observables(x), observables(y)
        distances.append(torch.stack([_wasserstein(a[:, i], b[:, i]) for i in range(a.shape[1])]) / a.std(0))
        errors.append((b[:, 0].mean() / a[:, 0].mean() - 1.0).abs())
        profiles.append([_profile_distance(x, y, axes) for axes in ((0, 2, 3), (0, 1))])
    longitudinal, lateral = torch.tensor(profiles).mean(0).tolist()
    return {
        "observable_distance": torch.cat(distances).mean().item(),
        "response_error": torch.stack(errors).max().item(),
        "longitudinal_distance": longitudinal,
        "lateral_distance": lateral,
    }


def mean_showers(train: Tensor, conditions: Tensor) -> Tensor:
    """Return the baseline: for each condition, the mean training shower of its bin of energy; nothing fluctuates."""
    edges = torch.linspace(-1.0, 1.0, ENERGY_BINS + 1)[1:-1]
    bins = torch.bucketize(conditions_of(train).contiguous(), edges)
    means = torch.stack([shares_of(train[bins == index]).mean(0) for index in range(ENERGY_BINS)])
    return as_sample(means[torch.bucketize(conditions.contiguous(), edges)], conditions)


def _moments(profile: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation along profiles (count, places) that sum to 1."""
    places = torch.arange(profile.shape[1], dtype=profile.dtype)
    mean = (profile * places).sum(1)
    return mean, ((profile * places**2).sum(1) - mean**2).clamp_min(1e-6).sqrt()


def _wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Return the 1-Wasserstein distance of two samples in one dimension: the mean distance of their quantiles."""
    at = torch.linspace(0.0, 1.0, 201, dtype=a.dtype)
    return (torch.quantile(a, at) - torch.quantile(b, at)).abs().mean()


def _profile_distance(a: Tensor, b: Tensor, axes: tuple[int, ...]) -> float:
    first, second = (each.sum(axes) / each.sum().clamp_min(1e-6) for each in (a, b))
    return 0.5 * (first - second).abs().sum().item()
