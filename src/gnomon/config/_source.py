"""Checks on a configuration file before Hydra reads it."""

from __future__ import annotations

from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gnomon.documents import load_yaml
from gnomon.errors import ConfigError, UntrustedTargetError

MAX_BYTES = 2**20
MAX_VALUES = 100_000


def is_url(text: str) -> bool:
    """Whether a configuration is named by a web address, and not by a file or a name."""
    return "://" in text


def check_source(file: Traversable) -> None:
    """Raise ConfigError unless `file` is a YAML mapping of reasonable size that imports no foreign package."""
    parse_source(_read(file), str(file))


def parse_source(text: str, where: str) -> Any:
    """Return the mapping in the text of a configuration, None if it is empty; raise ConfigError as `check_source`."""
    data = load_yaml(text, where, ConfigError, MAX_VALUES)
    if data is None:
        return None
    if not isinstance(data, dict):
        raise ConfigError(f"'{where}' must hold a mapping of keys to values, found {type(data).__name__}.")
    _check_search_path(data.get("hydra"), where)
    return data


def _read(file: Traversable) -> str:
    if isinstance(file, Path) and file.stat().st_size > MAX_BYTES:
        raise ConfigError(f"'{file}' has {file.stat().st_size} bytes; configurations are limited to {MAX_BYTES}.")
    try:
        return file.read_text(encoding="utf-8")
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
