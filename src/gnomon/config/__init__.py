"""Compose, validate and instantiate configurations."""

from gnomon.config._described import description_of
from gnomon.config._source import is_url
from gnomon.config.compose import compose, load_config, locate_config
from gnomon.config.instantiate import instantiate
from gnomon.config.resolvers import register_resolvers
from gnomon.config.sweep import expand_sweep
from gnomon.config.values import require_values, select, to_plain, to_yaml

__all__ = [
    "compose",
    "description_of",
    "expand_sweep",
    "instantiate",
    "is_url",
    "load_config",
    "locate_config",
    "register_resolvers",
    "require_values",
    "select",
    "to_plain",
    "to_yaml",
]
