"""The `${gnomon...}` resolvers, usable in every configuration."""

from __future__ import annotations

import math
import os
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from omegaconf import Container, DictConfig, OmegaConf

from gnomon.errors import ConfigError

Number = int | float
MAX_RANGE = 100_000


def register_resolvers() -> None:
    """Register cwd, range, multiply, now and cores under `gnomon.`; calling it again changes nothing."""
    OmegaConf.register_new_resolver("gnomon.cwd", lambda: str(Path.cwd()), replace=True)
    OmegaConf.register_new_resolver("gnomon.range", number_range, replace=True)
    OmegaConf.register_new_resolver("gnomon.multiply", multiply, replace=True)
    OmegaConf.register_new_resolver("gnomon.now", _now, replace=True)
    OmegaConf.register_new_resolver("gnomon.cores", usable_cores, replace=True)


def usable_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def number_range(start: Number, stop: Number | None = None, step: Number = 1) -> list[Number]:
    """Return start, start + step, ... below `stop` (above it for a negative step); raise ConfigError if step is 0.

    As in Python, one number is where to stop, and the range starts at 0.
    """
    start, stop = (0, start) if stop is None else (start, stop)
    if not all(isinstance(value, int | float) for value in (start, stop, step)):
        raise ConfigError(f"${{gnomon.range:{start},{stop},{step}}} needs numbers.")
    if step == 0:
        raise ConfigError(f"${{gnomon.range:{start},{stop},0}} never ends. Give a step other than 0.")
    first, last, by = (Decimal(str(value)) for value in (start, stop, step))  # so that 3 * 0.1 is 0.3
    count = max(0, math.ceil((last - first) / by))
    if count > MAX_RANGE:
        raise ConfigError(f"${{gnomon.range:{start},{stop},{step}}} has {count} values, above {MAX_RANGE}.")
    whole = all(isinstance(value, int) for value in (start, step))
    return [int(first + index * by) if whole else float(first + index * by) for index in range(count)]


def multiply(x: Number, y: Number) -> Number:
    """Return x * y; raise ConfigError for anything but numbers (`2 * 'ab'` is a mistake in a configuration)."""
    if not isinstance(x, int | float) or not isinstance(y, int | float):
        raise ConfigError(f"${{gnomon.multiply:{x},{y}}} needs two numbers.")
    return x * y


def set_moment(config: DictConfig, moment: datetime) -> None:
    """Fix the time that `${gnomon.now:...}` shows anywhere in `config`."""
    OmegaConf.get_cache(config)["gnomon.now"]["moment"] = moment


def _now(pattern: str, *, _root_: Container) -> str:
    cache = OmegaConf.get_cache(_root_)["gnomon.now"]  # type: ignore[arg-type]
    moment: datetime = cache.setdefault("moment", datetime.now().astimezone())
    return moment.strftime(pattern)
