"""Strategies by name, found through the entry points `gnomon.strategies`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from gnomon.errors import ConfigError, LaunchError, did_you_mean
from gnomon.runtime.environment import RankEnvironment

if TYPE_CHECKING:
    import torch

    from gnomon.strategy.base import Strategy

GROUP = "gnomon.strategies"


def list_strategies() -> list[str]:
    """Return the names of all installed strategies, without importing them."""
    return sorted(_entries())


def create_strategy(
    name: str, environment: RankEnvironment, device: torch.device, options: Mapping[str, Any] | None = None
) -> Strategy:
    """Return the strategy `name` with its `options`; `auto` is `ddp` for several ranks and `single` for one.

    Raises ConfigError for an unknown name or option, and LaunchError when it does not load or does not fit the ranks.
    """
    if name == "auto":
        name = "ddp" if environment.world_size > 1 else "single"
    entries = _entries()
    if name not in entries:
        raise ConfigError(f"strategy='{name}' is not installed. {did_you_mean(name, ['auto', *entries])}")
    try:
        strategy = entries[name].load()
    except (ImportError, AttributeError) as error:
        raise LaunchError(f"strategy='{name}' does not load from '{entries[name].value}': {error}.") from error
    options = options or {}
    known = list(inspect.signature(strategy).parameters)[2:]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else "It has no options."
            raise ConfigError(f"strategy '{name}' has no option '{option}'. {hint}")
    return strategy(environment, device, **options)


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}
