"""A hydrological bucket model: the synthetic catchment that the forecast is trained on.

Everything here is generated; no measurement is used. Daily weather comes from simple stochastic generators, and the
river from four stores in a row: snow (degree-day melt), soil (evapotranspiration, saturation excess), a quick and a
slow linear reservoir. It follows the HBV family (Bergstroem 1976) with its usual parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Catchment:
    """Parameters of one catchment; millimetres, days and degrees Celsius."""

    melt_mm_per_degree_day: float = 3.0
    threshold_c: float = 0.0
    field_capacity_mm: float = 150.0
    beta: float = 2.0
    quick_days: float = 3.0
    slow_days: float = 60.0
    percolation: float = 0.4
    mean_temperature_c: float = 8.0
    wet_probability: float = 0.35
    wet_mean_mm: float = 8.0


def draw_catchment(generator: np.random.Generator) -> Catchment:
    """Return a catchment with parameters from the ranges that calibrations of HBV usually find."""
    return Catchment(
        melt_mm_per_degree_day=generator.uniform(2.0, 5.0),
        field_capacity_mm=generator.uniform(80.0, 250.0),
        beta=generator.uniform(1.0, 3.5),
        quick_days=generator.uniform(1.5, 5.0),
        slow_days=generator.uniform(30.0, 90.0),
        percolation=generator.uniform(0.2, 0.6),
        mean_temperature_c=generator.uniform(4.0, 12.0),
    )


def draw_weather(catchment: Catchment, days: int, generator: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return daily rain (mm), temperature (C) and potential evapotranspiration (mm), each (days,).

    Rain: a two-state Markov chain of wet and dry days with exponential amounts (Richardson 1981). Temperature: a year's
    sine and first-order autoregressive noise. Evapotranspiration: a year's sine, zero below freezing.
    """
    day = np.arange(days)
    season = np.sin(2 * np.pi * (day - 105) / 365.25)
    noise = np.zeros(days)
    for index in range(1, days):
        noise[index] = 0.7 * noise[index - 1] + generator.normal(0.0, 2.5)
    temperature = catchment.mean_temperature_c + 9.0 * season + noise
    wet = np.zeros(days, dtype=bool)
    for index in range(1, days):
        stay = 0.65 if wet[index - 1] else catchment.wet_probability * 0.7
        wet[index] = generator.random() < stay
    rain = np.where(wet, generator.exponential(catchment.wet_mean_mm, days), 0.0)
    evaporation = np.maximum(0.0, 1.8 + 1.6 * season) * (temperature > 0.0)
    return rain, temperature, evaporation


def simulate(catchment: Catchment, rain: Array, temperature: Array, evaporation: Array) -> tuple[Array, Array]:
    """Return daily discharge (mm) and soil moisture (mm), each (days,); water is neither made nor lost.

    Storage at the start is empty snow and reservoirs, and a soil that is half full.
    """
    snow, soil, quick, slow = 0.0, 0.5 * catchment.field_capacity_mm, 0.0, 0.0
    discharge, moisture = np.zeros(len(rain)), np.zeros(len(rain))
    for index, (fall, degrees, demand) in enumerate(zip(rain, temperature, evaporation, strict=True)):
        snow, liquid = _melt(catchment, snow, fall, degrees)
        runoff = liquid * min(1.0, soil / catchment.field_capacity_mm) ** catchment.beta
        soil += liquid - runoff
        excess = max(0.0, soil - catchment.field_capacity_mm)
        soil -= excess
        soil -= min(soil, demand * min(1.0, soil / (0.7 * catchment.field_capacity_mm)))
        quick += (1.0 - catchment.percolation) * runoff + excess
        slow += catchment.percolation * runoff
        out_quick, out_slow = quick / catchment.quick_days, slow / catchment.slow_days
        quick, slow = quick - out_quick, slow - out_slow
        discharge[index], moisture[index] = out_quick + out_slow, soil
    return discharge, moisture


def _melt(catchment: Catchment, snow: float, fall: float, degrees: float) -> tuple[float, float]:
    """Return the snow that is left and the liquid water of a day."""
    if degrees <= catchment.threshold_c:
        return snow + fall, 0.0
    melted = min(snow, catchment.melt_mm_per_degree_day * (degrees - catchment.threshold_c))
    return snow - melted, fall + melted
