"""What is injected into the strain: inspirals of two black holes, and sine-Gaussian bursts."""

from __future__ import annotations

import numpy as np
from detector import SAMPLE_RATE_HZ, Array, whiten

SOLAR_MASS_S = 4.925491e-6  # G M_sun / c^3
LOWEST_HZ, HIGHEST_HZ = 20.0, 110.0
RAMP = 0.1  # of an inspiral's length, over which it is switched on and off


def inspiral(chirp_mass: float, samples: int) -> Array:
    """Return an inspiral that ends in the middle of so many samples, whitened, with unit norm; chirp mass in suns.

    To lowest order in v/c (Peters 1964, doi:10.1103/PhysRev.136.B1224): the frequency grows as the time to the merger
    to the power of -3/8, the amplitude as the frequency to the power of 2/3. Between 20 Hz and 110 Hz.
    """
    mass_s = chirp_mass * SOLAR_MASS_S
    longest_s, shortest_s = (_time_to_merger(mass_s, frequency) for frequency in (LOWEST_HZ, HIGHEST_HZ))
    to_merger = (samples // 2 - np.arange(samples)) / SAMPLE_RATE_HZ + shortest_s
    inside = (to_merger <= longest_s) & (to_merger >= shortest_s)
    tau = np.clip(to_merger, shortest_s, longest_s)
    frequency = (5.0 / (256.0 * tau)) ** 0.375 * mass_s**-0.625 / np.pi
    phase = -2.0 * (tau / (5.0 * mass_s)) ** 0.625
    progress = (longest_s - tau) / (longest_s - shortest_s)
    window = np.clip(np.minimum(progress, 1.0 - progress) / RAMP, 0.0, 1.0)
    return _normalised(inside * np.sin(0.5 * np.pi * window) ** 2 * frequency ** (2.0 / 3.0) * np.cos(phase))


def sine_gaussian(frequency_hz: float, quality: float, samples: int) -> Array:
    """Return a burst in the middle of so many samples, whitened, with unit norm; it lasts quality / (pi f)."""
    time_s = (np.arange(samples) - samples // 2) / SAMPLE_RATE_HZ
    width_s = quality / (np.sqrt(2.0) * np.pi * frequency_hz)
    return _normalised(np.exp(-((time_s / width_s) ** 2)) * np.cos(2.0 * np.pi * frequency_hz * time_s))


def _time_to_merger(mass_s: float, frequency_hz: float) -> float:
    return float(5.0 / 256.0 * (np.pi * frequency_hz) ** (-8.0 / 3.0) * mass_s ** (-5.0 / 3.0))


def _normalised(strain: Array) -> Array:
    white = whiten(strain)
    return white / np.linalg.norm(white)
