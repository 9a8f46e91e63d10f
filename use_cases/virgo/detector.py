"""A synthetic interferometer: its own noise, what other instruments witness of its surroundings, and the couplings.

Everything here is generated; no detector data is used. Frequencies are in Hz and times in s. The strain is whitened
by the design sensitivity, so that the noise of the undisturbed detector has deviation 1 in every sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLE_RATE_HZ = 256
LOWEST_HZ = 10.0  # the strain is cut off below: the design noise rises without end
MAINS_HZ = 50.0
WITNESSES = ("ground", "mains", "alignment")
WITNESS_NOISE = 0.02  # deviation of a witness's own noise, of its signal's deviation 1


@dataclass(frozen=True, kw_only=True)
class Couplings:
    """How the surroundings reach the strain; gains are deviations of the whitened strain that they cause.

    `ground`: linear, through a mechanical resonance. `mains`: linear, the line itself, a little late. `sidebands`:
    bilinear, the slow motion of the alignment modulates the mains line. `upconversion`: quadratic, the ground shakes
    the resonance twice in each period.
    """

    ground: float = 1.5
    mains: float = 1.0
    sidebands: float = 1.0
    upconversion: float = 0.5
    resonance_hz: float = 28.0
    quality: float = 4.0
    mains_delay_s: float = 2.5e-3


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Whitened strain without signals (samples,), what couples into it (samples,), and witnesses (3, samples)."""

    strain: Array
    coupled: Array
    witnesses: Array


def design_psd(frequency_hz: Array) -> Array:
    """Return the one-sided design noise power of the initial Virgo detector (1/Hz).

    S = 10.2e-46 [(7.87 x)^-4.8 + 6/17 x^-1 + 1 + x^2] with x = f / 500 Hz, a fit to the published design curve that
    LALSimulation has as XLALSimNoisePSDVirgo. Infinite below the cut-off.
    """
    x = np.maximum(frequency_hz, LOWEST_HZ) / 500.0
    power = 10.2e-46 * ((7.87 * x) ** -4.8 + 6.0 / 17.0 / x + 1.0 + x**2)
    return np.where(frequency_hz < LOWEST_HZ, np.inf, power)


def coloured_noise(samples: int, generator: np.random.Generator) -> Array:
    """Return strain (samples,) of the undisturbed detector: Gaussian, stationary, with the design power."""
    white = np.fft.rfft(generator.standard_normal(samples))
    power = design_psd(np.fft.rfftfreq(samples, 1.0 / SAMPLE_RATE_HZ))
    amplitude = np.where(np.isinf(power), 0.0, np.sqrt(power * SAMPLE_RATE_HZ / 2.0))
    return np.fft.irfft(white * amplitude, samples)


def whiten(strain: Array) -> Array:
    """Return strain (samples,) over the design amplitude, so that undisturbed noise has a flat power."""
    power = design_psd(np.fft.rfftfreq(len(strain), 1.0 / SAMPLE_RATE_HZ))
    return np.fft.irfft(np.fft.rfft(strain) / np.sqrt(power * SAMPLE_RATE_HZ / 2.0), len(strain))


def make_stretch(samples: int, couplings: Couplings, generator: np.random.Generator) -> Stretch:
    """Return so many samples of the disturbed detector."""
    ground = _band(samples, 15.0, 45.0, generator)
    alignment = _band(samples, 0.5, 4.0, generator)
    amplitude = 1.0 + 0.3 * _band(samples, 0.02, 0.2, generator)
    phase = 2 * np.pi * MAINS_HZ * np.arange(samples) / SAMPLE_RATE_HZ + 0.5 * _band(samples, 0.02, 0.2, generator)
    mains = np.sqrt(2.0) * amplitude * np.sin(phase)
    late = _filtered(mains, lambda frequency: np.exp(-2j * np.pi * frequency * couplings.mains_delay_s))
    shaken = _unit(_filtered(ground, lambda frequency: _resonance(frequency, couplings)))
    coupled = (
        couplings.ground * shaken
        + couplings.mains * late
        + couplings.sidebands * alignment * late
        + couplings.upconversion * _unit(shaken**2 - 1.0)
    )
    truth = np.stack([ground, mains, alignment])
    witnesses = truth + WITNESS_NOISE * generator.standard_normal(truth.shape)
    return Stretch(strain=whiten(coloured_noise(samples, generator)) + coupled, coupled=coupled, witnesses=witnesses)


def _band(samples: int, low_hz: float, high_hz: float, generator: np.random.Generator) -> Array:
    """Return Gaussian noise (samples,) of deviation 1 between two frequencies."""
    white = generator.standard_normal(samples)
    return _unit(_filtered(white, lambda frequency: (frequency >= low_hz) & (frequency <= high_hz)))


def _filtered(values: Array, response: Callable[[Array], NDArray[Any]]) -> Array:
    frequency = np.fft.rfftfreq(len(values), 1.0 / SAMPLE_RATE_HZ)
    return np.fft.irfft(np.fft.rfft(values) * response(frequency), len(values))


def _resonance(frequency_hz: Array, couplings: Couplings) -> NDArray[np.complex128]:
    """Return the response of a damped pendulum to the motion of its support, apart from a factor."""
    ratio = frequency_hz / couplings.resonance_hz
    return 1.0 / (1.0 - ratio**2 + 1j * ratio / couplings.quality)


def _unit(values: Array) -> Array:
    return (values - values.mean()) / values.std()
