"""Resolved values of a composed configuration, with every failure named by its key."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gnomon.config._explain import explain_omegaconf
from gnomon.config.resolvers import register_resolvers
from gnomon.errors import ConfigError


def to_plain(node: DictConfig | ListConfig) -> Any:
    """Return dicts, lists and scalars with every interpolation resolved; raise ConfigError where one fails.

    Values that were never set stay `???`.
    """
    register_resolvers()
    try:
        return OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise explain_omegaconf(error, node) from None


def select(config: DictConfig, key: str) -> Any:
    """Return the value or node at a dotted key, None when there is none; raise ConfigError where it cannot be read."""
    try:
        return OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise explain_omegaconf(error, config) from None


def to_yaml(node: DictConfig | ListConfig) -> str:
    """Return the resolved configuration as YAML that composes to the same values; raise ConfigError as `to_plain`."""
    return OmegaConf.to_yaml(OmegaConf.create(_escape(to_plain(node))))


def require_values(node: DictConfig | ListConfig) -> None:
    """Raise ConfigError that names every key of `node` whose value is still `???`, or an interpolation that fails."""
    try:
        keys = sorted(OmegaConf.missing_keys(node))
    except OmegaConfBaseException as error:
        raise explain_omegaconf(error, node) from None
    if keys:
        raise ConfigError(
            f"No value for {', '.join(repr(key) for key in keys)}: the configuration leaves it to you (???). "
            f"Set it on the command line, as in {keys[0]}=VALUE."
        )


def _escape(value: Any) -> Any:
    """Return `value` with each literal `${` marked as literal, so that reading it back resolves nothing again."""
    if isinstance(value, dict):
        return {key: _escape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escape(item) for item in value]
    return value.replace("${", "\\${") if isinstance(value, str) else value
