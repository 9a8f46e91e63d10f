"""Hydra's and OmegaConf's errors in gnomon's words: what was set, what was found, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from gnomon.errors import ConfigError, did_you_mean


def explain_unknown_key(key: str, override: str, base: DictConfig) -> ConfigError:
    """Return the ConfigError of an override whose key `base` does not have; it names the nearest one."""
    add = "" if override.startswith("~") else f" To add a new key, write '+{override}'."
    return ConfigError(
        f"The override '{override}' names a key that the configuration does not have. {nearest_key(key, base)}{add}"
    )


def explain_missing_config(error: MissingConfigException) -> ConfigError:
    """Return the ConfigError of a config group option that does not exist."""
    wanted = str(error.missing_cfg_file)
    group, _, option = wanted.rpartition("/")
    options: Sequence[str] = error.options or ()
    if not group or not options:
        return ConfigError(f"The configuration '{wanted}', named in a defaults list or override, was not found.")
    return ConfigError(f"The config group '{group}' has no option '{option}'. {did_you_mean(option, options)}")


def explain_omegaconf(error: OmegaConfBaseException, node: Container) -> ConfigError:
    """Return the ConfigError of a value that OmegaConf refuses or cannot resolve."""
    where = f"'{error.full_key}'" if error.full_key else "a value of the configuration"
    if isinstance(error, InterpolationToMissingValueError):
        key = _first_line(error).rpartition(": ")[2]
        return ConfigError(f"{where} refers to '{key}', which has no value yet (???). Set it, as in {key}=VALUE.")
    if isinstance(error, UnsupportedInterpolationType):
        return ConfigError(f"{where}: {_first_line(error)}. {did_you_mean(_resolver_name(error), _resolvers())}")
    if isinstance(error, InterpolationKeyError):
        name = _first_line(error).partition("'")[2].partition("'")[0]
        root = node._get_root()
        help_text = nearest_key(name, root) if isinstance(root, DictConfig) else ""
        return ConfigError(f"{where} refers to '${{{name}}}', which does not exist. {help_text}")
    reason = _first_line(error).rpartition("raised while resolving interpolation: ")[2]
    return ConfigError(f"{where}: {reason}.")


def nearest_key(key: str, config: DictConfig) -> str:
    """Return a sentence with the key of the nearest last part, beside `key` or anywhere, or else all keys beside it."""
    paths = [path for path in key_paths(config) if path != "hydra" and not path.startswith("hydra.")]
    parent, _, leaf = key.rpartition(".")
    while parent and parent not in paths:
        parent = parent.rpartition(".")[0]
    beside = [path for path in paths if path.rpartition(".")[0] == parent]
    for group in (beside, paths):
        near = difflib.get_close_matches(leaf, {_leaf(path) for path in group}, n=1, cutoff=0.6)
        if near:
            same = [path for path in group if _leaf(path) == near[0]]
            return f"Did you mean '{difflib.get_close_matches(key, same, n=1, cutoff=0.0)[0]}'?"
    return f"Valid names: {', '.join(sorted(beside))}." if beside else ""


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def key_paths(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every key of a configuration, without resolving anything."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(config, DictConfig) and not _is_special(config):
        items = config.items_ex(resolve=False)
    elif isinstance(config, ListConfig) and not _is_special(config):
        items = enumerate(config._iter_ex(resolve=False))
    for key, value in items:
        yield f"{prefix}{key}"
        yield from key_paths(value, f"{prefix}{key}.")


def first_paragraph(error: BaseException) -> str:
    """Return an error's message up to the first empty line or link, on one line."""
    lines = []
    for line in str(error).splitlines():
        if not line.strip() or "http" in line:
            break
        lines.append(line.strip())
    return " ".join(lines)


def _is_special(node: Container) -> bool:
    return bool(node._is_none() or node._is_missing() or node._is_interpolation())


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _resolver_name(error: BaseException) -> str:
    return _first_line(error).rpartition(" ")[2].strip("'")


def _resolvers() -> list[str]:
    from omegaconf.basecontainer import BaseContainer

    names = BaseContainer._resolvers
    return [name for name in names if OmegaConf.has_resolver(name)]
