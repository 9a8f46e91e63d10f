"""Electromagnetic showers in a sampling calorimeter, from published parametrisations: all of it is synthetic.

Longitudinal: the energy per radiation length follows a gamma distribution (Longo and Sestili 1975, doi
10.1016/0029-554X(75)90679-5), whose depth of maximum T and shape alpha fluctuate as correlated log-normals. Lateral: a
core and a tail, f(r) = p 2 r Rc^2 / (r^2 + Rc^2)^2 + (1 - p) 2 r Rt^2 / (r^2 + Rt^2)^2, whose radii and share change
with depth. Formulas and constants are those of Grindhammer and Peters 1993 (arXiv hep-ex/0001020, appendix A), for a
homogeneous medium; on top comes the fluctuation of a sampling calorimeter, sigma(E) / E = s / sqrt(E / GeV).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from scipy.special import gammainc

from gnomon.spec import Noun

Array = NDArray[np.float64]


class Calorimeter(Noun):
    """Layers along the beam and square cells across it; the default medium is lead tungstate."""

    layers: PositiveInt = 8
    cells: PositiveInt = 8
    layer_depth_x0: PositiveFloat = 3.0
    cell_width_rm: PositiveFloat = 0.35
    atomic_number: PositiveFloat = 68.4
    critical_energy_gev: PositiveFloat = 0.0096
    sampling: PositiveFloat = 0.1
    spots_per_gev: PositiveFloat = 40.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers and cells: the shape of one shower."""
        return self.layers, self.cells, self.cells


def draw_energies(count: int, lowest_gev: float, highest_gev: float, generator: np.random.Generator) -> Array:
    """Return energies (count,) in GeV whose logarithm is uniform."""
    return np.exp(generator.uniform(np.log(lowest_gev), np.log(highest_gev), count))


def simulate(calorimeter: Calorimeter, energies_gev: Array, generator: np.random.Generator) -> NDArray[np.float32]:
    """Return the energy in GeV seen in each cell (count, layers, cells, cells); what leaves the volume is lost."""
    depth_of_maximum, alpha = _longitudinal_shapes(calorimeter, energies_gev, generator)
    edges = calorimeter.layer_depth_x0 * np.arange(calorimeter.layers + 1)
    beta = (alpha - 1.0) / depth_of_maximum
    shares = np.diff(gammainc(alpha[:, None], beta[:, None] * edges), axis=1)
    deposited = shares * energies_gev[:, None]
    quantum = calorimeter.sampling**2  # GeV: the variance of a gamma variate over its mean
    seen = quantum * generator.gamma(np.maximum(deposited / quantum, 1e-9))
    middles = 0.5 * (edges[1:] + edges[:-1]) / depth_of_maximum[:, None]
    return _spread(calorimeter, energies_gev, seen, middles, generator)


def _longitudinal_shapes(
    calorimeter: Calorimeter, energies_gev: Array, generator: np.random.Generator
) -> tuple[Array, Array]:
    """Return the depth of the maximum in radiation lengths and alpha, each (count,)."""
    ln_y = np.log(energies_gev / calorimeter.critical_energy_gev)
    mean_ln_t = np.log(ln_y - 0.812)
    mean_ln_alpha = np.log(0.81 + (0.458 + 2.26 / calorimeter.atomic_number) * ln_y)
    sigma_ln_t = 1.0 / (-1.4 + 1.26 * ln_y)
    sigma_ln_alpha = 1.0 / (-0.58 + 0.86 * ln_y)
    rho = 0.705 - 0.023 * ln_y
    first, second = generator.standard_normal((2, len(ln_y)))
    both, apart = np.sqrt((1.0 + rho) / 2.0) * first, np.sqrt((1.0 - rho) / 2.0) * second
    depth = np.exp(mean_ln_t + sigma_ln_t * (both + apart))
    alpha = np.exp(mean_ln_alpha + sigma_ln_alpha * (both - apart))
    return depth, np.maximum(alpha, 1.05)  # a shower has a maximum


def _spread(
    calorimeter: Calorimeter, energies_gev: Array, seen: Array, tau: Array, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Return the energy of each layer shared among its cells by spots that are drawn from the lateral profile."""
    counts = generator.poisson(calorimeter.spots_per_gev * seen) + 1
    per_spot = np.repeat((seen / counts).ravel(), counts.ravel())
    ln_e = np.broadcast_to(np.log(energies_gev)[:, None], seen.shape)
    radius = _radii(
        calorimeter.atomic_number, *(np.repeat(each.ravel(), counts.ravel()) for each in (ln_e, tau)), generator
    )
    angle = generator.uniform(0.0, 2.0 * np.pi, len(radius))
    half = calorimeter.cells / 2.0
    across = [np.floor(radius * turn(angle) / calorimeter.cell_width_rm + half) for turn in (np.cos, np.sin)]
    inside = np.all([(place >= 0) & (place < calorimeter.cells) for place in across], axis=0)
    layer = np.repeat(np.arange(seen.size), counts.ravel())[inside]
    x, y = (place[inside].astype(np.int64) for place in across)
    cells = calorimeter.cells
    flat = np.bincount((layer * cells + x) * cells + y, weights=per_spot[inside], minlength=seen.size * cells**2)
    return flat.reshape(len(energies_gev), *calorimeter.shape).astype(np.float32)


def _radii(z: float, ln_e: Array, tau: Array, generator: np.random.Generator) -> Array:
    """Return a radius in Moliere radii for each spot, at a depth of tau = t / T."""
    core = 0.0251 + 0.00319 * ln_e + (0.1162 - 0.000381 * z) * tau
    k1, k2, k3, k4 = 0.659 - 0.00309 * z, 0.645, -2.59, 0.3585 + 0.0412 * ln_e
    tail = k1 * (np.exp(k3 * (tau - k2)) + np.exp(np.minimum(k4 * (tau - k2), 20.0)))
    p1, p2, p3 = 2.632 - 0.00094 * z, 0.401 + 0.00187 * z, 1.313 - 0.0686 * ln_e
    place = (p2 - tau) / p3
    share = np.clip(p1 * np.exp(place - np.exp(place)), 0.0, 1.0)
    scale = np.where(generator.random(len(tau)) < share, core, tail)
    drawn = generator.random(len(tau))
    return scale * np.sqrt(drawn / (1.0 - drawn))
