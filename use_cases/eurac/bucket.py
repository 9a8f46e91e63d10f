"""A hydrological bucket model: the synthetic catchment that the forecast is trained on.

Everything here is generated; no measurement is used. Daily weather comes from simple stochastic generators, and the
river from four stores: snow (degree-day melt), soil (evapotranspiration, saturation excess), and a quick and a slow
linear reservoir side by side. It is a reduced HBV model (Bergström 1976; Lindström et al. 1997,
doi:10.1016/S0022-1694(97)00041-3) with its usual parameter names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# HBV's LP: above this share of the field capacity, plants take up as much water as the air demands
UNSTRESSED_SHARE = 0.7
NOISE_MEMORY = 0.7  # correlation of a day's temperature anomaly with the next day's
NOISE_C = 2.5
SEASON_C = 9.0
SPRING_DAY = 105  # of the year, when the season's sine passes zero upwards


@dataclass(frozen=True, kw_only=True)
class Catchment:
    """Parameters of one catchment; millimetres over its area, days and degrees Celsius."""

    melt_mm_per_degree_day: float = 3.0
    threshold_c: float = 0.0
    field_capacity_mm: float = 150.0
    beta: float = 2.0
    quick_days: float = 3.0
    slow_days: float = 60.0
    percolation: float = 0.4
    mean_temperature_c: float = 8.0
    wet_after_dry: float = 0.25
    wet_after_wet: float = 0.65
    wet_mean_mm: float = 8.0


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Daily rain and snowfall (mm), temperature (degrees C) and potential evapotranspiration (mm), each (days,)."""

    precipitation: Array
    temperature: Array
    evaporation_demand: Array


@dataclass(frozen=True, kw_only=True)
class Response:
    """Daily discharge and actual evapotranspiration (mm), and what is stored at a day's end (mm), each (days,).

    `storage` is the water in all four stores, `soil_moisture` that of the soil alone.
    """

    discharge: Array
    evaporation: Array
    soil_moisture: Array
    storage: Array


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


def draw_weather(catchment: Catchment, days: int, generator: np.random.Generator) -> Weather:
    """Return the weather of so many days.

    Precipitation: a two-state Markov chain of wet and dry days with exponential amounts (Richardson 1981,
    doi:10.1029/WR017i001p00182). Temperature: a year's sine and first-order autoregressive noise. Evaporative demand:
    a year's sine, none in frost.
    """
    season = np.sin(2 * np.pi * (np.arange(days) - SPRING_DAY) / 365.25)
    anomaly = np.zeros(days)
    wet = np.zeros(days, dtype=bool)
    for day in range(1, days):
        anomaly[day] = NOISE_MEMORY * anomaly[day - 1] + generator.normal(0.0, NOISE_C)
        chance = catchment.wet_after_wet if wet[day - 1] else catchment.wet_after_dry
        wet[day] = generator.random() < chance
    temperature = catchment.mean_temperature_c + SEASON_C * season + anomaly
    return Weather(
        precipitation=np.where(wet, generator.exponential(catchment.wet_mean_mm, days), 0.0),
        temperature=temperature,
        evaporation_demand=(1.8 + 1.6 * season) * (temperature > 0.0),
    )


def initial_storage(catchment: Catchment) -> float:
    """Return the water (mm) that `simulate` starts with: a soil that is half full, and nothing else."""
    return 0.5 * catchment.field_capacity_mm


def simulate(catchment: Catchment, weather: Weather) -> Response:
    """Return what the catchment does in that weather; water is neither made nor lost."""
    capacity = catchment.field_capacity_mm
    snow, soil, quick, slow = 0.0, initial_storage(catchment), 0.0, 0.0
    rows = []
    days = zip(weather.precipitation, weather.temperature, weather.evaporation_demand, strict=True)
    for fall, degrees, demand in days:
        snow, liquid = _melt(catchment, snow, fall, degrees)
        runoff = liquid * min(1.0, soil / capacity) ** catchment.beta
        soil += liquid - runoff
        excess = max(0.0, soil - capacity)
        soil -= excess
        evaporation = min(soil, demand * min(1.0, soil / (UNSTRESSED_SHARE * capacity)))
        soil -= evaporation
        quick += (1.0 - catchment.percolation) * runoff + excess
        slow += catchment.percolation * runoff
        out_quick, out_slow = quick / catchment.quick_days, slow / catchment.slow_days
        quick, slow = quick - out_quick, slow - out_slow
        rows.append((out_quick + out_slow, evaporation, soil, snow + soil + quick + slow))
    discharge, evaporated, moisture, storage = np.array(rows).T
    return Response(discharge=discharge, evaporation=evaporated, soil_moisture=moisture, storage=storage)


def _melt(catchment: Catchment, snow: float, fall: float, degrees: float) -> tuple[float, float]:
    """Return the snow that is left and the liquid water of a day."""
    if degrees <= catchment.threshold_c:
        return snow + fall, 0.0
    melted = min(snow, catchment.melt_mm_per_degree_day * (degrees - catchment.threshold_c))
    return snow - melted, fall + melted
