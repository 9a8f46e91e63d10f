"""The configuration of the verbs of `gnomon plan`: a YAML file and overrides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gnomon.errors import ConfigError


def read_plan(config: Path, overrides: list[str]) -> dict[str, Any]:
    """Return the resolved configuration as plain values; raise ConfigError when it cannot be read."""
    from gnomon.config import load_config, require_values, to_plain

    loaded = load_config(config, overrides)
    if not loaded:
        raise ConfigError(f"'{config}' is empty. Give a YAML file that names model, cluster and workload.")
    require_values(loaded)
    plain: dict[str, Any] = to_plain(loaded)
    return plain
