"""The scalar phi^4 theory on a square lattice with periodic boundaries."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from gnomon.spec import Noun


class Phi4(Noun):
    """Lattice action S = sum_x [phi_x sum_mu (2 phi_x - phi_(x+mu) - phi_(x-mu)) + m2 phi_x^2 + lam phi_x^4].

    In lattice units, as in arXiv 1904.12072 and arXiv 2101.08176.
    """

    size: int = Field(default=6, ge=4, multiple_of=2, description="sites along each axis")
    m2: float = -4.0
    lam: float = Field(default=8.0, gt=0.0)

    def __call__(self, phi: Tensor) -> Tensor:
        """Return the action (batch,) of fields (batch, size, size)."""
        density = self.m2 * phi**2 + self.lam * phi**4
        for axis in (1, 2):
            density = density + 2 * phi**2 - phi * (torch.roll(phi, 1, axis) + torch.roll(phi, -1, axis))
        return density.sum((1, 2))


def hamiltonian_monte_carlo(
    action: Phi4, chains: int, steps: int, *, step_size: float = 0.1, leapfrogs: int = 10, seed: int = 0
) -> tuple[Tensor, float]:
    """Return the fields (chains, size, size) after `steps` trajectories from zero, and the share that was accepted.

    Duane, Kennedy, Pendleton, Roweth 1987. It needs no flow, and so it checks one.
    """
    generator = torch.Generator().manual_seed(seed)
    phi = torch.zeros(chains, action.size, action.size)
    accepted = 0.0
    for _ in range(steps):
        momentum = torch.randn(phi.shape, generator=generator)
        before = action(phi) + 0.5 * (momentum**2).sum((1, 2))
        proposal, momentum = _leapfrog(action, phi, momentum, step_size, leapfrogs)
        after = action(proposal) + 0.5 * (momentum**2).sum((1, 2))
        accept = torch.rand(chains, generator=generator) < torch.exp(before - after)
        phi = torch.where(accept[:, None, None], proposal, phi)
        accepted += accept.float().mean().item() / steps
    return phi, accepted


def _leapfrog(action: Phi4, phi: Tensor, momentum: Tensor, step_size: float, steps: int) -> tuple[Tensor, Tensor]:
    momentum = momentum - 0.5 * step_size * _force(action, phi)
    for index in range(steps):
        phi = phi + step_size * momentum
        momentum = momentum - (step_size if index < steps - 1 else 0.5 * step_size) * _force(action, phi)
    return phi, momentum


def _force(action: Phi4, phi: Tensor) -> Tensor:
    phi = phi.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(action(phi).sum(), phi)
    return gradient
