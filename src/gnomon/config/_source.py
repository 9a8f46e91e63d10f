"""Checks on a configuration file before Hydra reads it."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from gnomon.config._explain import explain_yaml
from gnomon.errors import ConfigError, UntrustedTargetError

MAX_BYTES = 2**20


def check_source(file: Traversable) -> None:
    """Raise ConfigError unless `file` is a YAML mapping of reasonable size that imports no foreign package."""
    data = _read(file)
    if data is None:
        return
    if not isinstance(data, dict):
        raise ConfigError(f"'{file}' must hold a mapping of keys to values, found {type(data).__name__}.")
    _check_search_path(data.get("hydra"), str(file))


def _read(file: Traversable) -> Any:
    if isinstance(file, Path) and file.stat().st_size > MAX_BYTES:
        raise ConfigError(f"'{file}' has {file.stat().st_size} bytes; configurations are limited to {MAX_BYTES}.")
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise explain_yaml(error, str(file)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"'{file}' is not text in UTF-8: {error.reason} at byte {error.start}.") from None
    except OSError as error:
        raise ConfigError(f"'{file}' cannot be read: {error.strerror}.") from None


def _check_search_path(hydra: Any, file: str) -> None:
    """Raise UntrustedTargetError where a file adds a Python package to the search path: that would import it."""
    entries = hydra.get("searchpath") if isinstance(hydra, dict) else hydra
    if entries is None:
        return
    for entry in entries if isinstance(entries, list) else [entries]:
        text = str(entry)
        if "${" in text or (text.startswith("pkg://") and text.split("/")[2].split(".")[0] != "gnomon"):
            raise UntrustedTargetError(
                f"'{file}' sets hydra.searchpath to '{text}', which may import a package. Use plain folders there."
            )
